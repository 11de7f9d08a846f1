"""Weights on disk, named by the digest of their bytes.

A blob is written to a temporary file, fsynced, renamed, its folder fsynced, and only then named in
the database: a row promises a whole file.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from blake3 import blake3
from sqlalchemy import insert, select

from common.disk import SYSTEM_DISK
from common.errors import NotFound, RequestError, UnavailableError
from common.ids import WeightsId
from common.transfer import digest_of
from orchestrator.database import BLOBS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Select

    from common.disk import Disk, File
    from orchestrator.fencing import Fence

TEMPORARY = ".tmp"
KEPT_LENGTHS = 1024  # of the blobs that were asked for


class UnknownWeights(NotFound):
    """There are no weights of that digest here."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"there are no weights {digest} here, or not for this caller")


class DamagedWeights(UnavailableError):
    """A stored file does not hold what its name says."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"the stored weights {digest} are damaged: restore them from a backup")


class StorageFailed(UnavailableError):
    """The disk did not take or give the bytes."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the orchestrator's disk failed ({error.strerror}): try again later")


class WeightsElsewhere(RequestError):
    """The database names weights, and none of them lies in this folder."""

    field = "shared"

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"the database names weights, and {folder} has none of them: `shared` must be the "
            "folder of the orchestrator that wrote them, or a copy of it"
        )


class NewBlob:
    """Bytes on their way into the store."""

    def __init__(self, file: File, keep: Callable[[WeightsId, int], None]) -> None:
        self._file = file
        self._keep = keep
        self._hasher = blake3()
        self._length = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._hasher.update(data)
        self._file.write(data, self._length)
        self._length += len(data)

    def keep(self) -> WeightsId:
        """Return the digest that names what was written, once it is durable."""
        self._file.sync()
        digest = WeightsId(self._hasher.hexdigest())
        self._keep(digest, self._length)
        return digest


class StoredBlob:
    """A blob that is read once, in order."""

    def __init__(self, file: File, digest: str, byte_length: int) -> None:
        self._file = file
        self._digest = digest
        self._hasher = blake3()
        self._read = 0
        self.byte_length = byte_length

    def read_into(self, room: memoryview) -> memoryview:
        """Return the bytes that come next, in `room`, which they fill but at the end."""
        got = room[: self._file.read_into(room, self._read)]
        self._hasher.update(got)
        self._read += len(got)
        return got

    def check(self) -> None:
        """Raise DamagedWeights unless what was read is all of it and has its digest."""
        if self._read != self.byte_length or self._hasher.hexdigest() != self._digest:
            raise DamagedWeights(self._digest)


class WeightStore:
    """Blobs by digest; its methods may be called from any thread."""

    def __init__(self, folder: Path, fence: Fence, disk: Disk = SYSTEM_DISK) -> None:
        """Keep the files in `folder` of `disk` and their rows behind `fence`.

        Raises:
            WeightsElsewhere: there are rows, and not one of the files that they name.
        """
        disk.make_folder(folder)
        present = disk.names(folder)
        with fence.reading() as connection:
            named = connection.scalars(select(BLOBS.c.digest)).all()
        if named and not set(named) & set(present):
            raise WeightsElsewhere(folder)
        for left in present:
            if left.endswith(TEMPORARY):
                disk.unlink(folder / left)
        self._disk = disk
        self._folder = folder
        self._fence = fence
        self._lengths: dict[str, int] = {}

    def put(self, data: bytes | memoryview) -> WeightsId:
        """Return the digest that names `data`, once it is durable; a repeat changes nothing."""
        digest = digest_of(data)
        if self.has(digest):
            return digest
        with self.writing() as blob:
            blob.write(data)
            return blob.keep()

    @contextmanager
    def writing(self) -> Iterator[NewBlob]:
        """Lend a blob that grows; unless it is kept, nothing is left of it."""
        # a name of its own: two calls may write the same bytes at once
        temporary = self._folder / f"{secrets.token_hex(16)}{TEMPORARY}"
        try:
            with self._disk.create(temporary) as file:
                yield NewBlob(file, lambda digest, size: self._keep(temporary, digest, size))
        except OSError as error:
            raise StorageFailed(error) from error
        finally:
            with suppress(OSError):
                self._disk.unlink(temporary)

    @contextmanager
    def reading(self, digest: str) -> Iterator[StoredBlob]:
        """Lend a blob to be read in pieces, all of it in order; raise UnknownWeights."""
        length = self.byte_length(digest)
        try:
            with self._disk.open(self._path(digest)) as file:
                yield StoredBlob(file, digest, length)
        except OSError as error:
            raise StorageFailed(error) from error

    def has(self, digest: str) -> bool:
        """Whether the store holds the blob."""
        try:
            self.byte_length(digest)
        except UnknownWeights:
            return False
        return True

    def byte_length(self, digest: str) -> int:
        """Return the length of a blob; raise UnknownWeights."""
        length: int | None = self._lengths.get(digest)
        if length is None:
            with self._fence.reading() as connection:
                length = connection.execute(_find(digest)).scalar()
            if length is None:
                raise UnknownWeights(digest)
            if len(self._lengths) >= KEPT_LENGTHS:
                self._lengths = {}  # another thread may hold the old one
            self._lengths[digest] = length
        return length

    def get(self, digest: str) -> bytes:
        """Return the whole blob, its digest checked; raise UnknownWeights or DamagedWeights."""
        self.byte_length(digest)
        try:
            data = self._disk.read(self._path(digest))
        except OSError as error:
            raise StorageFailed(error) from error
        if digest_of(data) != digest:
            raise DamagedWeights(digest)
        return data

    def read(self, digest: str, offset: int, length: int) -> memoryview:
        """Return up to `length` bytes of a blob from `offset` on; the receiver checks the whole."""
        try:
            with self._disk.open(self._path(digest)) as file:
                room = bytearray(length)
                return memoryview(room)[: file.read_into(room, offset)]
        except OSError as error:
            raise StorageFailed(error) from error

    def _keep(self, temporary: Path, digest: WeightsId, byte_length: int) -> None:
        """Give a synced file its name, then name it in the database."""
        self._disk.rename(temporary, self._path(digest))
        self._disk.sync_folder(self._folder)
        with self._fence.writing() as connection:
            if connection.execute(_find(digest)).scalar() is None:
                row = {"digest": digest, "byte_length": byte_length}
                connection.execute(insert(BLOBS).values(**row))

    def _path(self, digest: str) -> Path:
        return self._folder / digest


def _find(digest: str) -> Select[int]:
    return select(BLOBS.c.byte_length).where(BLOBS.c.digest == digest)
