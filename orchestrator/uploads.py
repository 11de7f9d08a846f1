"""One update on its way into its file, checked as it grows; none of it stays in memory.

A file begins with a block that says how many of the bytes behind it have come; it is written after
them, so that a file can be used again for another update.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from errno import EIO
from typing import TYPE_CHECKING

import numpy as np

from common.errors import AbortedError
from common.transfer import CHUNK_BYTES, DigestMismatch, LengthMismatch, end_of
from orchestrator.decoding import Decoded
from orchestrator.running_check import RunningCheck
from orchestrator.weight_store import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from common.disk import File
    from common.protocol import Body, Chunk
    from common.update_form import UpdateForm
    from orchestrator.aggregation import Values
    from orchestrator.weight_store import WeightStore

BEGINNING = 4096  # bytes before the body
_HELD = struct.Struct("<Q")


class StagedBytesDamaged(AbortedError):
    """What an earlier transfer left did not outlast a loss of power; its sender is not to blame."""

    def __init__(self) -> None:
        super().__init__(
            "the part of the update that came before was damaged on the orchestrator's disk and is "
            "deleted: send the whole body again"
        )


@dataclass
class OpenFile:
    """A file that updates are staged in, one after the other."""

    path: Path
    file: File


class Upload:
    """A file that grows by chunks until it holds the body that was declared; checked as it grows.

    One thread at a time may use it.
    """

    def __init__(self, open_file: Callable[[], OpenFile], body: Body, form: UpdateForm) -> None:
        """Go on with what a file holds of `body`, which shall be an update of `form`.

        The file is opened with the first chunk: until then others may use it.
        """
        self._open_file = open_file
        self._opened: OpenFile | None = None
        self._body = body
        self._form = form
        self._check = RunningCheck(body, form)
        self._held = body.offset
        self._is_caught_up = not self._held
        self.norm = 0.0  # L2, of a checked update

    def take_all(self, chunks: Iterable[Chunk]) -> None:
        """Append chunks; raise what `take` raises."""
        for chunk in chunks:
            self.take(chunk)

    def take(self, chunk: Chunk) -> None:
        """Append a chunk; raise OffsetMismatch, ChunkTooLong, LengthMismatch or StorageFailed."""
        end = end_of(chunk, self._held, self._body)
        self._catch_up()
        try:
            self._file().write(chunk.data, BEGINNING + self._held)
            hold(self._file(), end)
        except OSError as error:
            raise StorageFailed(error) from error
        self._held = end
        self._check.see(chunk.data)

    def checked(self) -> Values:
        """Return the update's values.

        Raises:
            StagedBytesDamaged: it is not what was declared, and only its end came by this transfer.
            FederationError: what `RunningCheck.finish` finds.
        """
        self._catch_up()
        try:
            self.norm = self._check.finish(self._read)
        except (LengthMismatch, DigestMismatch) as error:
            if self._body.offset and not self.is_short:
                raise StagedBytesDamaged from error
            raise
        begin = BEGINNING + len(self._form.header)
        return Decoded(StagedBytes(self._file(), begin), self._form)

    def keep(self, store: WeightStore) -> None:
        """Store a checked update under its digest, durable when this returns."""
        with store.writing() as blob:
            for start in range(0, self._held, CHUNK_BYTES):
                blob.write(self._read(start, min(CHUNK_BYTES, self._held - start)))
            blob.keep()

    @property
    def is_short(self) -> bool:
        """Whether bytes are still to come."""
        return self._held < self._body.byte_length

    def give_up(self) -> OpenFile:
        """Return the file, which is no longer this upload's."""
        opened, self._opened = self._open(), None
        return opened

    def close(self) -> None:
        """Let the file go, if it was not given up; what it holds stays."""
        if self._opened is not None:
            self._opened.file.close()

    def _open(self) -> OpenFile:
        if self._opened is None:
            self._opened = self._open_file()
        return self._opened

    def _file(self) -> File:
        return self._open().file

    def _catch_up(self) -> None:
        """Check what an earlier transfer has left."""
        if not self._is_caught_up:
            for start in range(0, self._held, CHUNK_BYTES):
                self._check.see(self._read(start, min(CHUNK_BYTES, self._held - start)))
            self._is_caught_up = True

    def _read(self, offset: int, length: int) -> memoryview:
        room = memoryview(bytearray(length))
        try:
            return room[: self._file().read_into(room, BEGINNING + offset)]
        except OSError as error:
            raise StorageFailed(error) from error


class StagedBytes:
    """What lies behind the header of a checked update, read from its file piece by piece."""

    def __init__(self, file: File, begin: int) -> None:
        """Count from byte `begin` of the file on, which stays open as long as needed."""
        self._file = file
        self._begin = begin

    def __getitem__(self, place: slice) -> NDArray[np.uint8]:
        """Return some bytes; raise StorageFailed."""
        room = np.empty(place.stop - place.start, dtype=np.uint8)
        try:
            got = self._file.read_into(room.data, self._begin + place.start)
        except OSError as error:
            raise StorageFailed(error) from error
        if got != room.nbytes:
            raise StorageFailed(OSError(EIO, "a staged file became shorter"))
        return room


def held(file: File) -> int:
    """Return how many bytes of the body a file holds."""
    room = bytearray(_HELD.size)
    return _HELD.unpack(room)[0] if file.read_into(room, 0) == len(room) else 0


def hold(file: File, count: int) -> None:
    """Say that a file holds `count` bytes of the body."""
    file.write(_HELD.pack(count), 0)
