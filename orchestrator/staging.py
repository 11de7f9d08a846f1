"""Updates on their way in: one named file each, so that a torn transfer is resumed by offset.

A file begins with a block that says how many of the bytes behind it have come; it is written after
them. So a file can be used again for another update: to write over the pages of a file costs a
fourth of what it costs to get new ones. Nothing is fsynced: a gateway keeps its bytes until the
round is published, and what a crash of the machine tore has another digest than its name.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EIO
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

from common.disk import SYSTEM_DISK
from common.errors import UnavailableError
from common.transfer import (
    CHUNK_BYTES,
    BodyTooLong,
    ChunkTooLong,
    LengthMismatch,
    OffsetMismatch,
)
from orchestrator.checks import RunningCheck
from orchestrator.decoding import Decoded
from orchestrator.weight_store import StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from common.disk import Disk, File
    from common.ids import GatewayId, RunId
    from common.protocol import Body, Chunk
    from common.update_form import UpdateForm
    from orchestrator.aggregation import Values

BEGINNING = 4096  # bytes before the body
SPARE, PART = "spare_", ".part"
_HELD = struct.Struct("<Q")


class UploadInProgress(UnavailableError):
    """The same gateway is sending an update for the same round already.

    Perhaps it is a call that broke off, of which this side has not heard yet: that ends soon.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__(
            f"an upload for round {slot.round} of run {slot.run_id!r} is going on: "
            "wait until it ends, then ask GetUpload where to go on"
        )


class UploadMoved(UnavailableError):
    """A transfer would not go on where the one before it ended; that has ended since."""

    def __init__(self, *, got: int, held: int) -> None:
        super().__init__(
            f"the transfer would begin at byte {got}, {held} bytes have arrived: "
            "ask GetUpload where to go on"
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
    """A file that grows by chunks until it holds the body that was declared; checked as it grows.

    One thread at a time may use it. It is mapped into memory until `unmap`: for bodies that come
    fast, one at a time. What comes slowly is written, so that many of them take no memory.
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
        self._may_map = True

    def take_all(self, chunks: Iterable[Chunk]) -> None:
        """Append chunks; raise what `take` raises."""
        for chunk in chunks:
            self.take(chunk)

    def take(self, chunk: Chunk) -> None:
        """Append a chunk; raise OffsetMismatch, ChunkTooLong, LengthMismatch or StorageFailed."""
        end = self._held + len(chunk.data)
        if chunk.offset != self._held:
            raise OffsetMismatch(got=chunk.offset, need=self._held)
        if len(chunk.data) > CHUNK_BYTES:
            raise ChunkTooLong(got=len(chunk.data))
        if end > self._body.byte_length:
            raise LengthMismatch(got=end, need=self._body.byte_length)
        self._catch_up()
        try:
            self._write(chunk.data, BEGINNING + self._held)
            self._write(_HELD.pack(end), 0)
        except OSError as error:
            raise StorageFailed(error) from error
        self._held = end
        self._check.see(chunk.data)

    def checked(self) -> Values:
        """Return the update's values; raise what `RunningCheck.finish` raises."""
        self._catch_up()
        self._check.finish(self._read)
        begin, opened = BEGINNING + len(self._form.header), self._file()
        if opened.room is None:
            return Decoded(StagedBytes(opened.file, begin), self._form)
        return Decoded(np.frombuffer(opened.room, dtype=np.uint8, offset=begin), self._form)

    @property
    def is_short(self) -> bool:
        """Whether bytes are still to come."""
        return self._held < self._body.byte_length

    def unmap(self) -> None:
        """Write what comes from now on; may be called from another thread, and counts soon."""
        self._may_map = False

    def give_up(self) -> OpenFile:
        """Return the file, which is no longer this upload's."""
        opened, self._opened = self._file(), None
        return opened

    def close(self) -> None:
        """Let the file go, if it was not given up; what it holds stays."""
        if self._opened is not None:
            self._opened.file.close()

    def _file(self) -> OpenFile:
        if self._opened is None:
            self._opened = self._open_file()
        return self._opened

    def _write(self, data: bytes | memoryview, place: int) -> None:
        opened, need = self._file(), BEGINNING + self._body.byte_length
        if not self._may_map:
            opened.room = None
        elif opened.room is None or len(opened.room) < need:
            opened.room = opened.file.room(need)
        if opened.room is None:
            opened.file.write(data, place)
        else:
            opened.room[place : place + len(data)] = data

    def _catch_up(self) -> None:
        """Check what an earlier transfer has left."""
        if not self._is_caught_up:
            for start in range(0, self._held, CHUNK_BYTES):
                self._check.see(self._read(start, min(CHUNK_BYTES, self._held - start)))
            self._is_caught_up = True

    def _read(self, offset: int, length: int) -> memoryview:
        room = memoryview(bytearray(length))
        try:
            return room[: self._file().file.read_into(room, BEGINNING + offset)]
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


@dataclass
class OpenFile:
    """A file that updates are staged in, one after the other, and its mapping once there is one."""

    path: Path
    file: File
    room: memoryview | None = None


class Staging:
    """The files of updates that have not been counted yet."""

    def __init__(self, folder: Path, disk: Disk = SYSTEM_DISK) -> None:
        """Keep the files in `folder` of `disk`."""
        disk.make_folder(folder)
        self._disk = disk
        self._folder = folder
        self._busy: set[Slot] = set()
        self._spare: OpenFile | None = None
        self._files = RLock()  # over names and the spare: uploads open theirs in threads

    def held(self, slot: Slot, digest: str) -> int:
        """Return how many bytes of that update have arrived."""
        try:
            with self._disk.open(self._path(slot, digest)) as file:
                return _held(file)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StorageFailed(error) from error

    @contextmanager
    def receiving(
        self, slot: Slot, body: Body, form: UpdateForm, *, limit: int
    ) -> Iterator[Upload]:
        """Lend the file of an update; what another digest left in the slot is deleted.

        What it holds at the end is kept for a transfer that goes on, unless it was let go.

        Raises:
            BodyTooLong: the header declares more than `limit` bytes.
            UploadInProgress: the slot is taken.
            UploadMoved: the transfer does not go on where the file ends.
            StorageFailed: the disk does not give a file.
        """
        if body.byte_length > limit:
            raise BodyTooLong(got=body.byte_length, limit=limit)
        if slot in self._busy:
            raise UploadInProgress(slot)
        if body.offset != (held := self.held(slot, body.digest)):
            raise UploadMoved(got=body.offset, held=held)
        self._busy.add(slot)
        try:
            upload = Upload(partial(self._opened, slot, body.digest), body, form)
            try:
                yield upload
            finally:
                upload.close()
        finally:
            self._busy.discard(slot)

    def let_go(self, upload: Upload) -> None:
        """Forget an update that nobody reads any more; its file serves the next one."""
        with self._files:
            opened = upload.give_up()
            if self._spare is None and self._spares(opened):
                return
            opened.file.close()
            with suppress(OSError):
                self._disk.unlink(opened.path)  # or a sweep does

    def _spares(self, opened: OpenFile) -> bool:
        spare = self._folder / f"{SPARE}{PART}"
        try:
            self._disk.rename(opened.path, spare)
        except OSError:
            return False
        self._spare = OpenFile(spare, opened.file, opened.room)
        return True

    def sweep(self, live: Collection[Slot]) -> None:
        """Delete every file that belongs to none of the `live` slots."""
        prefixes = tuple(slot.prefix for slot in live) + tuple(s.prefix for s in self._busy)
        with self._files:
            if self._spare is not None and not prefixes:
                self._spare.file.close()
                self._spare = None
            kept = prefixes if self._spare is None else (*prefixes, SPARE)
            for name in self._disk.names(self._folder):
                if name.endswith(PART) and not name.startswith(kept):
                    self._disk.unlink(self._folder / name)

    def _opened(self, slot: Slot, digest: str) -> OpenFile:
        path = self._path(slot, digest)
        try:
            with self._files:
                names = self._disk.names(self._folder)
                for name in names:
                    if name.startswith(slot.prefix) and name != path.name:
                        self._disk.unlink(self._folder / name)
                spare = None if path.name in names else self._spare
                if spare is None:
                    return OpenFile(path, self._disk.extend(path))
                self._spare = None
                return self._used_again(spare, path)
        except OSError as error:
            raise StorageFailed(error) from error

    def _used_again(self, spare: OpenFile, path: Path) -> OpenFile:
        """Give the spare file another name; of what it held nothing counts."""
        spare.file.write(_HELD.pack(0), 0)
        self._disk.rename(spare.path, path)
        return OpenFile(path, spare.file, spare.room)

    def _path(self, slot: Slot, digest: str) -> Path:
        return self._folder / f"{slot.prefix}{digest}{PART}"


def _held(file: File) -> int:
    room = bytearray(_HELD.size)
    return _HELD.unpack(room)[0] if file.read_into(room, 0) == len(room) else 0
