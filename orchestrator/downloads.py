"""Stored weights on their way out, from any offset."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from common.errors import RequestError
from common.protocol import Body, Chunk
from common.transfer import CHUNK_BYTES
from orchestrator.weight_store import UnknownWeights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.ids import GatewayId, WeightsId
    from orchestrator.live_runs import LiveRuns
    from orchestrator.runs import Run
    from orchestrator.weight_store import WeightStore


class OffsetPastEnd(RequestError):
    """A caller holds more bytes than the body has."""

    field = "offset"

    def __init__(self, *, got: int, length: int) -> None:
        super().__init__(f"offset {got} is past the end, the weights have {length} bytes")


class Downloads:
    """Reads weights for those who may have them."""

    def __init__(self, runs: LiveRuns, weights: WeightStore) -> None:
        self._runs = runs
        self._weights = weights

    async def for_operator(self, digest: WeightsId, offset: int) -> AsyncIterator[Body | Chunk]:
        """Yield the declaration of any stored weights, then their chunks from `offset` on."""
        length = self._weights.byte_length(digest)
        if offset > length:
            raise OffsetPastEnd(got=offset, length=length)
        yield Body(digest, length, offset)
        for start in range(offset, length, CHUNK_BYTES):
            data = await asyncio.to_thread(self._weights.read, digest, start, CHUNK_BYTES)
            yield Chunk(start, data)

    async def for_gateway(
        self, gateway: GatewayId, digest: WeightsId, offset: int
    ) -> AsyncIterator[Body | Chunk]:
        """Yield weights of a run that the gateway takes part in, as `for_operator` does."""
        of = [live for live in self._runs.all() if _may_have(live.run, gateway, digest)]
        if not of:
            raise UnknownWeights(digest)
        async for part in self.for_operator(digest, offset):
            if isinstance(part, Chunk):
                of[0].bytes_sent += len(part.data)
            yield part


def _may_have(run: Run, gateway: GatewayId, digest: WeightsId) -> bool:
    parent = None if run.round is None else run.round.parent
    named = {run.plan.initial_weights, run.weights, run.model, parent}
    return gateway in run.participants and digest in named
