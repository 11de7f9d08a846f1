"""A process of ours that is killed at every write, each time at one at which none was killed yet.

A failpoint lies before and after each call by which bytes or names reach a disk, before each
further statement that writes in a transaction, and before and after its commit. Production code
holds none of them: they are laid over the calls of the operating system and of the databases, so
that no write can be added without one. A point is named by the function that writes, by what it
does to which kind of file or to which tables, and by its line:

    orchestrator.weight_store.WeightStore._keep: replace weights/RANDOM.tmp: before

Whoever comes to a point first writes it down in a folder, and is dead. The next one passes.
"""

from __future__ import annotations

import builtins
import io
import json
import linecache
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2s
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.default import DefaultDialect

ROOT = Path(__file__).parents[2]
PRODUCT = ("orchestrator", "gateway", "common")
DISK = "common.disk"  # what others write with
UNCOVERED = "uncovered"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
BY_PATH = ("rename", "replace", "unlink", "remove", "mkdir", "rmdir", "link", "symlink", "truncate")
BY_DESCRIPTOR = ("write", "pwrite", "fsync", "fdatasync", "ftruncate", "posix_fallocate")
AUDITED = {f"os.{name}" for name in ("rename", "remove", "mkdir", "rmdir", "link", "symlink")}
STATEMENT = re.compile(
    r"\s*(INSERT(?: OR IGNORE)? INTO|UPDATE|DELETE FROM|(?:CREATE|DROP|ALTER)(?: UNIQUE)? \w+)"
    r"\s+\"?(\w+)"
)
KINDS = (  # of names that differ from run to run
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])"), "DIGEST"),
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])"), "RANDOM"),
    (re.compile(r"^[a-z0-9.-]+_\d+_[a-z0-9.-]+_"), "RUN_ROUND_GATEWAY_"),
)


@dataclass(frozen=True)
class Point:
    """Where a process can be killed."""

    role: str  # the process's: orchestrator or gateway
    name: str
    functions: tuple[str, ...]  # of ours that were at work, the innermost first

    def file(self) -> str:
        return f"{blake2s(f'{self.role} {self.name}'.encode()).hexdigest()[:24]}.json"


class Claims:
    """The points at which a process was killed, in a folder that processes share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open, self._write = os.open, os.write  # before doors are laid over them
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, point: Point) -> bool:
        """Return whether nobody was killed there yet; then nobody else will be."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            file = self._open(self.folder / point.file(), flags)
        except FileExistsError:
            return False
        self._write(file, json.dumps(asdict(point)).encode())
        os.close(file)
        return True

    def note_uncovered(self, what: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = self._open(self.folder / UNCOVERED, flags)
        self._write(file, f"{what}\n".encode())
        os.close(file)

    def uncovered(self) -> set[str]:
        """Return the writes that no point covers."""
        file = self.folder / UNCOVERED
        return set(file.read_text().splitlines()) if file.exists() else set()

    def points(self) -> list[Point]:
        """Return the points at which a process was killed, in that order."""
        files = sorted(self.folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        found = [json.loads(file.read_text()) for file in files]
        return [Point(**{**each, "functions": tuple(each["functions"])}) for each in found]


class Failpoints:
    """The points of this process; `install` lays them over every way to write below a folder."""

    def __init__(self, role: str, root: Path, claims: Claims, only: str = "") -> None:
        """Kill at every point whose name holds `only`."""
        self._role, self._root, self._claims, self._only = role, root.resolve(), claims, only
        self._inside = threading.local()  # a door: what it does is covered
        self._of_transaction: dict[int, list[str]] = {}
        self._functions: dict[int, set[str]] = {}

    def install(self) -> None:
        sys.addaudithook(self._audit)
        os.open = self._door(os.open, "open", opens=True)
        for name in BY_PATH + BY_DESCRIPTOR:
            setattr(os, name, self._door(getattr(os, name), name))
        io.open = builtins.open = self._door(io.open, "open", opens=True)  # type: ignore[assignment]
        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "begin", lambda connection: self._forget(connection.connection))
        event.listen(Engine, "connect", self._connected)
        commit = DefaultDialect.do_commit

        def do_commit(dialect: Any, connection: Any) -> None:
            key = id(connection.dbapi_connection)
            what = self._of_transaction.pop(key, [])
            functions = self._functions.pop(key, set())
            if what:
                self._at(f"commit {', '.join(dict.fromkeys(what))}", "before", functions)
            commit(dialect, connection)
            if what:
                self._at(f"commit {', '.join(dict.fromkeys(what))}", "after", functions)

        DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]

    def _door(self, call: Callable[..., Any], name: str, *, opens: bool = False) -> Any:
        def door(*args: Any, **kwargs: Any) -> Any:
            kind = self._kind(args[0] if args else kwargs.get("path"))
            if kind is None or (opens and not _is_to_write(args, kwargs)):
                return call(*args, **kwargs)
            line = _line()
            self._at(f"{name} {kind}", "before", line=line)
            self._inside.door = True
            try:
                result = call(*args, **kwargs)
            finally:
                self._inside.door = False
            self._at(f"{name} {kind}", "after", line=line)
            return result

        return door

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Note a write that came by no door."""
        if getattr(self._inside, "door", False):
            return
        if event == "open":
            path, _mode, flags = args
            writes = isinstance(flags, int) and flags & WRITES
        else:
            path, writes = (args or (None,))[0], event in AUDITED
        if writes and (kind := self._kind(path)) is not None:
            self._claims.note_uncovered(f"{self._role} {event} {kind} {_line()}")

    def _kind(self, path: Any) -> str | None:
        """Return what kind of file that is, None outside of the folder."""
        if isinstance(path, int):
            try:
                path = Path(f"/proc/self/fd/{path}").readlink()
            except OSError:
                return None
        elif not isinstance(path, str | bytes | os.PathLike):
            return None
        try:
            relative = Path(os.fsdecode(path)).resolve().relative_to(self._root)
        except ValueError:
            return None
        if self._claims.folder.name in relative.parts[:1]:
            return None
        parts = relative.parts[1:] or (".",)  # each process has a folder in it
        name = parts[-1]
        for pattern, kind in KINDS:
            name = pattern.sub(kind, name)
        return "/".join((*parts[:-1], name))

    def _statement(
        self, connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any
    ) -> None:
        found = STATEMENT.match(statement)
        if found is None:
            return
        key = id(connection.connection.dbapi_connection)
        before = self._of_transaction.setdefault(key, [])
        if found[1].startswith("CREATE") and before:
            return  # between two tables of one schema there is nothing new
        events = [text for text in _texts(parameters) if found[2] == "events" and _is_event(text)]
        what = f"{found[2]}({', '.join(events)})" if events else found[2]
        if before:
            self._at(f"{found[1].lower()} {what}", "before")
        before.append(what)
        self._functions.setdefault(key, set()).update(_functions())

    def _forget(self, connection: Any) -> None:
        self._of_transaction.pop(id(connection.dbapi_connection), None)
        self._functions.pop(id(connection.dbapi_connection), None)

    def _connected(self, connection: Any, _record: Any) -> None:
        def traced(statement: str) -> None:
            if statement.startswith("PRAGMA wal_checkpoint"):
                self._at(statement, "before")

        if hasattr(connection, "set_trace_callback"):
            connection.set_trace_callback(traced)

    def _at(self, what: str, side: str, functions: Iterable[str] = (), line: str = "") -> None:
        """Be killed here, unless another process was."""
        found = tuple(dict.fromkeys((*_functions(), *functions)))
        where = f" [{line}]" if line else ""
        point = Point(self._role, f"{_site()}: {what}: {side}{where}", found)
        if self._only in point.name and self._claims.take(point):
            os.kill(os.getpid(), signal.SIGKILL)


def _is_to_write(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether these arguments of `open` ask for a file to write to."""
    how = args[1] if len(args) > 1 else kwargs.get("mode", kwargs.get("flags", "r"))
    return bool(how & WRITES) if isinstance(how, int) else bool(set(how) & set("wax+"))


def _is_event(text: str) -> bool:
    return text[:1].isupper() and text.isalpha()


def _texts(parameters: Any) -> Iterator[str]:
    """Yield the strings among a statement's parameters."""
    if isinstance(parameters, str):
        yield parameters
    elif isinstance(parameters, dict):
        yield from _texts(list(parameters.values()))
    elif isinstance(parameters, list | tuple):
        for each in parameters:
            yield from _texts(each)


def _ours() -> list[FrameType]:
    """Return the frames of ours that are at work in this thread, the innermost first."""
    frames, frame = [], sys._getframe()
    while frame is not None:
        if _module(frame).partition(".")[0] in PRODUCT:
            frames.append(frame)
        frame = frame.f_back
    return frames


def _module(frame: FrameType) -> str:
    file = Path(frame.f_code.co_filename)
    return ".".join(file.relative_to(ROOT).with_suffix("").parts) if ROOT in file.parents else ""


def _name(frame: FrameType) -> str:
    return f"{_module(frame)}.{frame.f_code.co_qualname}".replace(".<locals>.<lambda>", "")


def _functions() -> tuple[str, ...]:
    return tuple(_name(frame) for frame in _ours())


def _writer() -> FrameType | None:
    """Return the function that writes: neither the disk, nor what lends a transaction."""
    lends = CO_GENERATOR | CO_ASYNC_GENERATOR
    for frame in _ours():
        if _module(frame) != DISK and not frame.f_code.co_flags & lends:
            return frame
    return None


def _site() -> str:
    frame = _writer()
    return "" if frame is None else _name(frame)


def _line() -> str:
    frame = _writer()
    if frame is None:
        return ""
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
