"""Updates on disk, named by their digest, until the round that they belong to is published."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from blake3 import blake3

from common.errors import ConflictError
from common.ids import WeightsId, is_digest

PART = ".part"  # a file that a crash may have cut short
OWNER_ONLY = 0o600


class UpdateLost(ConflictError):
    """The bytes of an update are missing or damaged."""

    def __init__(self, digest: WeightsId) -> None:
        super().__init__(
            f"the bytes of update {digest[:12]} are missing or damaged: "
            "check the disk of the gateway's state folder"
        )


class UpdateStore:
    """A folder of updates; a file under its digest's name is whole and on the disk."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is made if need be; what a crash cut short is deleted."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._kept_now: set[str] = set()  # by this process: perhaps not recorded anywhere yet
        for part in folder.glob(f"*{PART}"):
            part.unlink()

    def keep(self, data: bytes) -> WeightsId:
        """Write `data` and return its digest; on the disk, name and all, when this returns."""
        digest = WeightsId(blake3(data).hexdigest())
        self._kept_now.add(digest)
        part = self._folder / f"{digest}{PART}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / digest)
        self._sync_names()
        return digest

    def read(self, digest: WeightsId) -> bytes:
        """Return the bytes that `keep` was given.

        Raises:
            UpdateLost: they are missing, or no longer what their name says.
        """
        try:
            data = (self._folder / digest).read_bytes()
        except FileNotFoundError as error:
            raise UpdateLost(digest) from error
        if blake3(data).hexdigest() != digest:
            raise UpdateLost(digest)
        return data

    def keep_only(self, digests: Collection[str]) -> None:
        """Delete what earlier processes left that is not among `digests`."""
        wanted = self._kept_now.union(digests)
        for path in self._folder.iterdir():
            if is_digest(path.name) and path.name not in wanted:
                path.unlink()
        self._sync_names()

    def discard(self, digest: WeightsId) -> None:
        """Delete an update, if it is there."""
        (self._folder / digest).unlink(missing_ok=True)

    def _sync_names(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
