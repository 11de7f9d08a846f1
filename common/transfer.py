"""Bodies <-> bounded chunks with a declared length and digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3

from common.errors import RequestError
from common.ids import WeightsId
from common.protocol import Body, Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 1 << 20  # smaller ones cost calls, larger ones cache misses


class LengthMismatch(RequestError):
    """A body is longer or shorter than its header says."""

    def __init__(self, *, got: int, need: int) -> None:
        super().__init__(
            f"{got} bytes came, the header declares {need}: nothing of it was counted; "
            "send the whole body again"
        )


class DigestMismatch(RequestError):
    """A body's bytes do not have the digest that its header declares."""

    def __init__(self, *, got: str, need: str) -> None:
        super().__init__(
            f"the bytes have digest {got}, the header declares {need}: nothing of it was counted; "
            "send the whole body again"
        )


class OffsetMismatch(RequestError):
    """A chunk does not begin where the one before it ended."""

    def __init__(self, *, got: int, need: int) -> None:
        super().__init__(f"a chunk begins at byte {got}, the next one needed begins at {need}")


class BodyTooLong(RequestError):
    """A body declares more bytes than may come."""

    def __init__(self, *, got: int, limit: int) -> None:
        super().__init__(f"the header declares {got} bytes, at most {limit} are taken here")


class ChunkTooLong(RequestError):
    """A chunk is longer than the limit."""

    def __init__(self, *, got: int) -> None:
        super().__init__(f"a chunk has {got} bytes, at most {CHUNK_BYTES} are taken")


def digest_of(data: bytes | memoryview) -> WeightsId:
    """Return the BLAKE3 digest of `data`, in hexadecimal."""
    return WeightsId(blake3(data).hexdigest())


def chunks_of(data: bytes | memoryview, offset: int = 0) -> Iterator[Chunk]:
    """Yield views of `data` from `offset` on, in order, each at most CHUNK_BYTES long."""
    view = memoryview(data)
    for start in range(offset, len(view), CHUNK_BYTES):
        yield Chunk(start, view[start : start + CHUNK_BYTES])


def end_of(chunk: Chunk, begin: int, body: Body) -> int:
    """Return where a chunk ends that follows the first `begin` bytes of `body`.

    Raises:
        OffsetMismatch, ChunkTooLong, LengthMismatch: it does not follow them, or may not.
    """
    if chunk.offset != begin:
        raise OffsetMismatch(got=chunk.offset, need=begin)
    if len(chunk.data) > CHUNK_BYTES:
        raise ChunkTooLong(got=len(chunk.data))
    end = begin + len(chunk.data)
    if end > body.byte_length:
        raise LengthMismatch(got=end, need=body.byte_length)
    return end


def check_whole(body: Body, *, received: int, digest: str) -> None:
    """Raise LengthMismatch or DigestMismatch unless what was received is what `body` declares."""
    if received != body.byte_length:
        raise LengthMismatch(got=received, need=body.byte_length)
    if digest != body.digest:
        raise DigestMismatch(got=digest, need=body.digest)


class Arriving:
    """Checks the chunks of one body in order and digests them as they come; keeps none."""

    def __init__(self, body: Body, *, limit: int) -> None:
        """Expect `body`; refuse more than `limit` bytes."""
        if body.byte_length > limit:
            raise BodyTooLong(got=body.byte_length, limit=limit)
        if body.offset:
            raise OffsetMismatch(got=body.offset, need=0)
        self._body = body
        self._hasher = blake3()
        self.received = 0  # bytes

    def take(self, chunk: Chunk) -> None:
        """Count a chunk; raise OffsetMismatch, ChunkTooLong or LengthMismatch."""
        end = end_of(chunk, self.received, self._body)
        self._hasher.update(chunk.data)
        self.received = end

    def finish(self) -> None:
        """Raise LengthMismatch or DigestMismatch unless all of the body came."""
        check_whole(self._body, received=self.received, digest=self._hasher.hexdigest())


class Receiver:
    """Takes the chunks of one body into memory, and checks the whole."""

    def __init__(self, body: Body, *, limit: int) -> None:
        """Expect `body`; refuse more than `limit` bytes."""
        self._arriving = Arriving(body, limit=limit)
        # numpy asks the kernel for large pages: half the cost of a body was that of small ones
        self._room = np.empty(body.byte_length, dtype=np.uint8).data

    @property
    def received(self) -> int:
        """How many bytes came."""
        return self._arriving.received

    def take(self, chunk: Chunk) -> None:
        """Append a chunk; raise OffsetMismatch, ChunkTooLong or LengthMismatch."""
        begin = self.received
        self._arriving.take(chunk)
        self._room[begin : self.received] = chunk.data

    def finish(self) -> memoryview:
        """Return the body, without a copy; raise LengthMismatch or DigestMismatch."""
        self._arriving.finish()
        return self._room.toreadonly()
