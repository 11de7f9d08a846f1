"""What happened, as it could be seen from outside: calls, answers, commits, training, faults."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from common.protocol import Chunk, UpdateHeader
from tests.simulation.faults import is_harmless
from tests.simulation.loop import Process


@dataclass(frozen=True)
class Committed:
    """A row of the journal, as it stands in the database."""

    at: float
    writer: str  # the process that committed it
    place: int  # of all rows
    run: str
    sequence: int
    epoch: int
    kind: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class Called:
    """A gateway's process makes a call."""

    at: float
    gateway: str
    process: str
    name: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Acted:
    """An orchestrator's process answers a call, or says one message of a stream."""

    at: float
    server: str
    gateway: str
    name: str
    args: tuple[Any, ...]
    result: Any


@dataclass(frozen=True)
class Returned:
    """A gateway's process hears the answer to a call."""

    at: float
    gateway: str
    process: str
    name: str
    args: tuple[Any, ...]
    result: Any


@dataclass(frozen=True)
class Trained:
    """A gateway has computed an update."""

    at: float
    gateway: str
    run: str
    round: int
    parent: str
    digest: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Noted:
    """A fault, a start, an end, a line of a log."""

    at: float
    what: str


Entry = Committed | Called | Acted | Returned | Trained | Noted


class History:
    """The entries of one seed, in the order of time."""

    def __init__(self, time: Callable[[], float], folder: Path) -> None:
        self._time = time
        self._folder = str(folder)  # which differs each time
        self.entries: list[Entry] = []
        self.watchers: list[Callable[[Entry], None]] = []
        self.violations: list[str] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        for watch in self.watchers:
            watch(entry)

    def note(self, what: str) -> None:
        self.add(Noted(self._time(), what.replace(self._folder, "")))

    def violated(self, invariant: str, why: str) -> None:
        """Record that an invariant does not hold; the simulation goes on to its end."""
        self.violations.append(f"{invariant}: {why}")
        self.note(f"VIOLATION {invariant}: {why}")

    def called(self, process: Process, gateway: str, name: str, args: tuple[Any, ...]) -> None:
        if process.alive:
            self.add(Called(self._time(), gateway, process.name, name, args))

    def acted(
        self, server: Process, gateway: str, name: str, args: tuple[Any, ...], result: Any
    ) -> None:
        if server.alive:
            self.add(Acted(self._time(), server.name, gateway, name, args, result))

    def returned(
        self, process: Process, gateway: str, name: str, args: tuple[Any, ...], result: Any
    ) -> None:
        self.add(Returned(self._time(), gateway, process.name, name, args, result))

    def bug(self, process: Process, error: BaseException) -> None:
        """A process met an error that is not one of ours; what ends the dead is none."""
        if not process.alive:
            return
        lines = traceback.format_exception(error)
        self.note(f"{process.name} met {error!r}\n{''.join(lines[-6:])}")
        if not is_harmless(error):
            self.violated("no bug", f"{process.name} met {error!r:.300}")

    def tail(self, count: int) -> list[str]:
        """Return the last entries as lines."""
        return [shown(entry) for entry in self.entries[len(self.entries) - count :]]


def shown(entry: Entry) -> str:
    """Return an entry as a line."""
    match entry:
        case Noted():
            what = entry.what
        case Committed():
            what = f"{entry.writer} commits {entry.sequence}.{entry.epoch} {entry.kind} " + _brief(
                entry.payload
            )
        case Called():
            what = f"{entry.process} -> {entry.name}({_all(entry.args)})"
        case Acted():
            what = f"{entry.server}: {entry.name} of {entry.gateway} = {_brief(entry.result)}"
        case Returned():
            what = f"{entry.process} <- {entry.name} = {_brief(entry.result)}"
        case Trained():
            what = f"{entry.gateway} trained round {entry.round}: {entry.digest[:8]}"
    return f"{entry.at:10.3f}  {what}"


def _all(args: tuple[Any, ...]) -> str:
    return ", ".join(map(_brief, args))


def _brief(value: Any) -> str:
    match value:
        case UpdateHeader():
            body = value.body
            return f"round {value.key.round}, {body.digest[:8]} from {body.offset}"
        case Chunk():
            return f"{len(value.data)} bytes at {value.offset}"
        case str() if len(value) == 64:
            return value[:8]
        case dict():
            return ", ".join(f"{name} {_brief(each)}" for name, each in value.items())
        case _:
            return f"{value!r:.200}"


def trace_of(history: History) -> str:
    """Return a digest of what happened when; signatures, which differ each time, left out."""
    hasher = blake3()
    for entry in history.entries:
        what = entry.what if isinstance(entry, Noted) else getattr(entry, "name", "")
        hasher.update(f"{entry.at:.9f} {type(entry).__name__} {what}\n".encode())
    return hasher.hexdigest()[:16]
