"""Updates on disk, named by their digest, until the round that they belong to is published."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from common.disk import SYSTEM_DISK, Disk, File
from common.errors import ConflictError
from common.ids import WeightsId, is_digest
from common.transfer import digest_of

PART = ".part"  # a file that a crash may have cut short


class UpdateLost(ConflictError):
    """The bytes of an update are missing or damaged."""

    def __init__(self, digest: WeightsId) -> None:
        super().__init__(
            f"the bytes of update {digest[:12]} are missing or damaged: "
            "check the disk of the gateway's state folder"
        )


class UpdateStore:
    """A folder of updates; a file under its digest's name is whole and on the disk."""

    def __init__(self, folder: Path, disk: Disk = SYSTEM_DISK) -> None:
        """Use `folder`, which is made if need be; what a crash cut short is deleted."""
        disk.make_folder(folder)
        self._disk = disk
        self._folder = folder
        self._spare = folder / f"spare{PART}"
        self._kept_now: set[str] = set()  # by this process: perhaps not recorded anywhere yet
        for name in disk.names(folder):
            if name.endswith(PART):
                disk.unlink(folder / name)

    def keep(self, data: bytes | memoryview, digest: WeightsId | None = None) -> WeightsId:
        """Write `data` and return its digest; on the disk, name and all, when this returns."""
        digest = digest or digest_of(data)
        self._kept_now.add(digest)
        part = self._folder / f"{digest}{PART}"
        with self._file(part, len(data)) as file:
            file.write(data, 0)
            file.sync()
        self._disk.rename(part, self._folder / digest)
        self._disk.sync_folder(self._folder)
        return digest

    def read(self, digest: WeightsId) -> bytes:
        """Return the bytes that `keep` was given.

        Raises:
            UpdateLost: they are missing, or no longer what their name says.
        """
        try:
            data = self._disk.read(self._folder / digest)
        except FileNotFoundError as error:
            raise UpdateLost(digest) from error
        if digest_of(data) != digest:
            raise UpdateLost(digest)
        return data

    def keep_only(self, digests: Collection[str]) -> None:
        """Delete what earlier processes left that is not among `digests`."""
        wanted = self._kept_now.union(digests)
        for name in self._disk.names(self._folder):
            if is_digest(name) and name not in wanted:
                self._disk.unlink(self._folder / name)
        self._disk.sync_folder(self._folder)

    def discard(self, digest: WeightsId) -> None:
        """Delete an update, if it is there; the next one may be written over its bytes."""
        self._kept_now.discard(digest)
        with suppress(FileNotFoundError):
            self._disk.rename(self._folder / digest, self._spare)

    def _file(self, part: Path, byte_length: int) -> File:
        """Open a file to write so many bytes: over those of an old one costs half as much."""
        with suppress(FileNotFoundError):
            if self._disk.size(self._spare) == byte_length:
                self._disk.rename(self._spare, part)
                return self._disk.extend(part)
        return self._disk.create(part)
