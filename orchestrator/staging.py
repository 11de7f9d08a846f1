"""Updates on their way in: one named file each, so that a torn transfer is resumed by offset.

The files are not fsynced: a gateway keeps its bytes until the round is published.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import ConflictError
from common.transfer import (
    CHUNK_BYTES,
    BodyTooLong,
    ChunkTooLong,
    DigestMismatch,
    LengthMismatch,
    OffsetMismatch,
    digest_of,
)
from orchestrator.weight_store import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from common.ids import GatewayId, RunId
    from common.protocol import Body, Chunk


class UploadInProgress(ConflictError):
    """The same gateway is sending an update for the same round already."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(
            f"an upload for round {slot.round} of run {slot.run_id!r} is going on: "
            "wait until it ends, then ask GetUpload where to go on"
        )


@dataclass(frozen=True)
class Slot:
    """Which update: a gateway stages one at a time for a round of a run."""

    run_id: RunId
    round: int
    gateway: GatewayId

    @property
    def prefix(self) -> str:
        """How the names of its files begin; no name in it holds an underscore."""
        return f"{self.run_id}_{self.round}_{self.gateway}_"


class Upload:
    """A file that grows by chunks until it holds the body that was declared."""

    def __init__(self, path: Path, body: Body) -> None:
        self._path = path
        self._body = body
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise StorageFailed(error) from error
        self._held = self._file.tell()

    def take(self, chunk: Chunk) -> None:
        """Append a chunk; raise OffsetMismatch, ChunkTooLong, LengthMismatch or StorageFailed."""
        if chunk.offset != self._held:
            raise OffsetMismatch(got=chunk.offset, need=self._held)
        if len(chunk.data) > CHUNK_BYTES:
            raise ChunkTooLong(got=len(chunk.data))
        if self._held + len(chunk.data) > self._body.byte_length:
            raise LengthMismatch(got=self._held + len(chunk.data), need=self._body.byte_length)
        try:
            self._held += self._file.write(chunk.data)
        except OSError as error:
            raise StorageFailed(error) from error

    def checked(self) -> memoryview:
        """Return the body, mapped from the file; raise LengthMismatch or DigestMismatch."""
        if self._held != self._body.byte_length:
            raise LengthMismatch(got=self._held, need=self._body.byte_length)
        view = memoryview(b"")
        if self._held:
            with self._path.open("rb") as file:
                view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        got = digest_of(view)
        if got != self._body.digest:
            raise DigestMismatch(got=got, need=self._body.digest)
        return view

    def discard(self) -> None:
        """Delete the file; a body that `checked` gave stays readable while it is held."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let the file go, and leave what it holds for a transfer that is resumed."""
        self._file.close()


class Staging:
    """The files of updates that have not been counted yet."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._busy: set[Slot] = set()

    def held(self, slot: Slot, digest: str) -> int:
        """Return how many bytes of that update have arrived."""
        path = self._path(slot, digest)
        return path.stat().st_size if path.exists() else 0

    @contextmanager
    def receiving(self, slot: Slot, body: Body, *, limit: int) -> Iterator[Upload]:
        """Lend the file of an update; what another digest left in the slot is deleted.

        Raises:
            BodyTooLong: the header declares more than `limit` bytes.
            UploadInProgress: the slot is taken.
            OffsetMismatch: the transfer does not go on where the file ends.
        """
        if body.byte_length > limit:
            raise BodyTooLong(got=body.byte_length, limit=limit)
        if slot in self._busy:
            raise UploadInProgress(slot)
        if body.offset != self.held(slot, body.digest):
            raise OffsetMismatch(got=body.offset, need=self.held(slot, body.digest))
        self._busy.add(slot)
        path = self._path(slot, body.digest)
        try:
            self._delete(slot.prefix, keep=path.name)
            upload = Upload(path, body)
            try:
                yield upload
            finally:
                upload.close()
        finally:
            self._busy.discard(slot)

    def sweep(self, live: Collection[Slot]) -> None:
        """Delete every file that belongs to none of the `live` slots."""
        prefixes = tuple(slot.prefix for slot in live) + tuple(s.prefix for s in self._busy)
        for path in self._folder.glob("*.part"):
            if not path.name.startswith(prefixes):
                path.unlink(missing_ok=True)

    def _delete(self, prefix: str, *, keep: str) -> None:
        for path in self._folder.glob(f"{prefix}*.part"):
            if path.name != keep:
                path.unlink()

    def _path(self, slot: Slot, digest: str) -> Path:
        return self._folder / f"{slot.prefix}{digest}.part"
