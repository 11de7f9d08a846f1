"""A disk in memory that forgets what was not synced when its machine loses power."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Self

from tests.simulation.faults import Fault, Faults
from tests.simulation.loop import Crashed, Process


class Inode:
    """A file's bytes: as programs see them, as they are durable, and the writes between."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = b""
        self.unsynced: list[tuple[int, bytes]] = []  # a write at offset -1 empties the file

    def write(self, data: bytes, offset: int) -> None:
        apply(self.content, data, offset)
        self.unsynced.append((offset, data))

    def sync(self) -> None:
        self.durable = bytes(self.content)
        self.unsynced.clear()

    def lose_power(self, random: Random, faults: Faults) -> None:
        """Keep what was synced, and of each write since all, a part, zeros, or nothing."""
        content = bytearray(self.durable)
        for offset, data in self.unsynced:
            fate = random.choice(("kept", "lost", "lost", "torn", "zeros"))
            if fate == "kept" or offset < 0:
                apply(content, data, offset)
                continue
            faults.count(Fault.LOST_WRITE if fate == "lost" else Fault.TORN_WRITE)
            if fate == "torn":
                apply(content, data[: random.randrange(len(data) + 1)], offset)
            elif fate == "zeros":
                apply(content, bytes(len(data)), offset)
        self.content, self.durable, self.unsynced = content, bytes(content), []


def apply(content: bytearray, data: bytes, offset: int) -> None:
    """Write `data` into `content`."""
    if offset < 0:
        content.clear()
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class SimulatedDisk:
    """One machine's disk; it outlives the machine's processes. Folders are durable at once."""

    def __init__(self, random: Random, faults: Faults) -> None:
        self._random = random
        self._faults = faults
        self.names: dict[Path, Inode] = {}
        self.durable: dict[Path, Inode] = {}
        self.unsynced: list[tuple[Path, Path | None, Inode | None]] = []  # name, from, to
        self.is_full = False

    def bind(self, path: Path, inode: Inode) -> None:
        self.names[path] = inode
        self.unsynced.append((path, None, inode))

    def rename(self, path: Path, target: Path) -> None:
        inode = self.names.pop(path)
        self.names[target] = inode
        self.unsynced.append((target, path, inode))

    def unlink(self, path: Path) -> None:
        if self.names.pop(path, None) is not None:
            self.unsynced.append((path, None, None))

    def sync_folder(self, folder: Path) -> None:
        rest = []
        for change in self.unsynced:
            if change[0].parent == folder:
                _name(self.durable, *change)
            else:
                rest.append(change)
        self.unsynced = rest

    def lose_power(self) -> None:
        """Forget names and bytes that were not synced: all, none, or any of them."""
        kept = self._random.choice((0.0, 0.5, 1.0))
        for change in self.unsynced:
            if self._random.random() < kept:
                _name(self.durable, *change)
            else:
                self._faults.count(Fault.LOST_NAME)
        self.unsynced = []
        written = dict.fromkeys((*self.names.values(), *self.durable.values()))
        self.names = dict(self.durable)
        for inode in written:
            inode.lose_power(self._random, self._faults)

    def durable_bytes(self, path: Path) -> bytes | None:
        """Return what a loss of power would certainly leave under a name."""
        inode = self.durable.get(path)
        if inode is None or inode.content != inode.durable:
            return None
        return inode.durable


def _name(names: dict[Path, Inode], name: Path, source: Path | None, inode: Inode | None) -> None:
    if source is not None and names.get(source) is inode:
        del names[source]
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


class ProcessDisk:
    """A disk as one process has it: a `common.disk.Disk` on which any call may be the last."""

    def __init__(self, disk: SimulatedDisk, process: Process, faults: Faults) -> None:
        self.disk = disk
        self._process = process
        self._faults = faults

    def make_folder(self, folder: Path) -> None:
        self.at(lambda: None)

    def names(self, folder: Path) -> list[str]:
        return self.at(lambda: sorted(p.name for p in self.disk.names if p.parent == folder))

    def size(self, path: Path) -> int:
        return self.at(lambda: len(self._found(path).content))

    def free(self, folder: Path) -> int:
        return 1 << 40  # a full disk is a fault of its own

    def open(self, path: Path) -> ProcessFile:
        return self.at(lambda: ProcessFile(self, self._found(path)))

    def create(self, path: Path) -> ProcessFile:
        return self.at(lambda: self._opened(path, empty=True), writes=True)

    def extend(self, path: Path) -> ProcessFile:
        return self.at(lambda: self._opened(path, empty=False), writes=True)

    def read(self, path: Path) -> bytes:
        return self.at(lambda: bytes(self._found(path).content))

    def rename(self, path: Path, target: Path) -> None:
        def rename() -> None:
            self._found(path)
            self.disk.rename(path, target)

        self.at(rename)

    def unlink(self, path: Path) -> None:
        self.at(lambda: self.disk.unlink(path))

    def sync_folder(self, folder: Path) -> None:
        self.at(lambda: self.disk.sync_folder(folder))

    def at(self, work: Callable[[], Any], *, writes: bool = False) -> Any:
        """Do `work`, unless a fault comes first; perhaps one comes afterwards."""
        self._alive()
        self._faults.crash_at_disk(self._process)
        if writes and self.disk.is_full:
            self._faults.count(Fault.DISK_FULL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._faults.strikes(Fault.EIO):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        result = work()
        self._faults.crash_at_disk(self._process)
        return result

    def _alive(self) -> None:
        if not self._process.alive:
            raise Crashed

    def _found(self, path: Path) -> Inode:
        if path not in self.disk.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self.disk.names[path]

    def _opened(self, path: Path, *, empty: bool) -> ProcessFile:
        if path not in self.disk.names:
            self.disk.bind(path, Inode())
        inode = self.disk.names[path]
        if empty and inode.content:
            inode.write(b"", -1)
        return ProcessFile(self, inode)


class ProcessFile:
    """An open file; closing it makes nothing durable."""

    def __init__(self, disk: ProcessDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def size(self) -> int:
        return self._disk.at(lambda: len(self._inode.content))

    def write(self, data, offset: int) -> None:
        self._disk.at(lambda: self._inode.write(bytes(data), offset), writes=True)

    def read_into(self, room, offset: int) -> int:
        def read() -> int:
            found = self._inode.content[offset : offset + len(room)]
            memoryview(room)[: len(found)] = found
            return len(found)

        return self._disk.at(read)

    def sync(self) -> None:
        self._disk.at(self._inode.sync)

    def close(self) -> None:
        pass
