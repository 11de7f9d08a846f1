"""Streams of requests that bring a body: its declaration, then its chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from common import wire
from common.protocol import Chunk
from orchestrator.rpc_errors import NotAChunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from protos.federation.v1 import weights_pb2


class BodyRequest(Protocol):
    """A request of such a stream."""

    @property
    def chunk(self) -> weights_pb2.Chunk:
        """A piece of the body, if it is one."""

    def WhichOneof(self, oneof_group: Literal["part"], /) -> str | None:  # noqa: N802 - protobuf's
        """Return what it holds."""


def part_of(request: BodyRequest | Chunk) -> str | None:
    """Return what a request holds; `common.frames` may have read it as a chunk."""
    return "chunk" if isinstance(request, Chunk) else request.WhichOneof("part")


async def chunks(
    requests: AsyncIterator[BodyRequest] | AsyncIterator[Chunk], message: str
) -> AsyncIterator[Chunk]:
    """Yield the chunks that follow a declaration; raise NotAChunk, naming `message`."""
    async for request in requests:
        if isinstance(request, Chunk):
            yield request
        elif request.WhichOneof("part") == "chunk":
            yield wire.chunk_from_proto(request.chunk)
        else:
            raise NotAChunk(message)
