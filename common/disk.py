"""Files and folders; what a store writes with, so that a test can lend it a disk that fails.

Bytes survive a crash of the machine once their file was synced, names once their folder was.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, Self, TypeAlias

OWNER_ONLY = 0o600
OWNER_ONLY_FOLDER = 0o700

Data: TypeAlias = bytes | bytearray | memoryview
Room: TypeAlias = bytearray | memoryview


class File(Protocol):
    """An open file; each call names its place, so that calls of several threads do not meet."""

    def size(self) -> int:
        """Return how many bytes it holds."""

    def write(self, data: Data, offset: int) -> None:
        """Write all of `data` from `offset` on."""

    def read_into(self, room: Room, offset: int) -> int:
        """Fill `room` from `offset` on; return how many bytes there were."""

    def sync(self) -> None:
        """Return once its bytes are durable."""

    def close(self) -> None:
        """Let it go."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Disk(Protocol):
    """Where files lie. Every call may raise OSError."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder and its parents, for the owner alone, unless it is there."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted."""

    def size(self, path: Path) -> int:
        """Return how many bytes a file holds; raise FileNotFoundError."""

    def free(self, folder: Path) -> int:
        """Return how many bytes more the files below a folder may take."""

    def open(self, path: Path) -> File:
        """Open a file to read; raise FileNotFoundError."""

    def create(self, path: Path) -> File:
        """Open a file to write and read, for the owner alone; what it held is gone."""

    def extend(self, path: Path) -> File:
        """Open a file to write and read, for the owner alone; what it held stays."""

    def read(self, path: Path) -> bytes:
        """Return all that a file holds; raise FileNotFoundError."""

    def rename(self, path: Path, target: Path) -> None:
        """Give a file another name, in place of the file that had it."""

    def unlink(self, path: Path) -> None:
        """Delete a file, if it is there."""

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in a folder are durable."""


class SystemFile:
    """A file of the machine's."""

    def __init__(self, path: Path, flags: int) -> None:
        """Open it with `flags` of `os.open`."""
        self._descriptor = os.open(path, flags | os.O_CLOEXEC, OWNER_ONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def size(self) -> int:
        """Return how many bytes it holds."""
        return os.fstat(self._descriptor).st_size

    def write(self, data: Data, offset: int) -> None:
        """Write all of `data` from `offset` on."""
        left = memoryview(data)
        while left:
            written = os.pwrite(self._descriptor, left, offset)
            left, offset = left[written:], offset + written

    def read_into(self, room: Room, offset: int) -> int:
        """Fill `room` from `offset` on; return how many bytes there were."""
        left, start = memoryview(room), offset
        while left:
            got = os.preadv(self._descriptor, [left], offset)
            if not got:
                break
            left, offset = left[got:], offset + got
        return offset - start

    def sync(self) -> None:
        """Return once its bytes are durable."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)


class SystemDisk:
    """The machine's."""

    def make_folder(self, folder: Path) -> None:
        """Make a folder and its parents, for the owner alone, unless it is there."""
        folder.mkdir(mode=OWNER_ONLY_FOLDER, parents=True, exist_ok=True)

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted."""
        return sorted(path.name for path in folder.iterdir())

    def size(self, path: Path) -> int:
        """Return how many bytes a file holds; raise FileNotFoundError."""
        return path.stat().st_size

    def free(self, folder: Path) -> int:
        """Return how many bytes more the files below a folder may take."""
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    def open(self, path: Path) -> SystemFile:
        """Open a file to read; raise FileNotFoundError."""
        return SystemFile(path, os.O_RDONLY)

    def create(self, path: Path) -> SystemFile:
        """Open a file to write and read, for the owner alone; what it held is gone."""
        return SystemFile(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def extend(self, path: Path) -> SystemFile:
        """Open a file to write and read, for the owner alone; what it held stays."""
        return SystemFile(path, os.O_RDWR | os.O_CREAT)

    def read(self, path: Path) -> bytes:
        """Return all that a file holds; raise FileNotFoundError."""
        return path.read_bytes()

    def rename(self, path: Path, target: Path) -> None:
        """Give a file another name, in place of the file that had it."""
        path.replace(target)

    def unlink(self, path: Path) -> None:
        """Delete a file, if it is there."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Return once the names in a folder are durable."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


SYSTEM_DISK = SystemDisk()
