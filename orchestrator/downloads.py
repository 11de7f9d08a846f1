"""Stored weights on their way out, from any offset."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from contextlib import contextmanager
from errno import EIO
from typing import TYPE_CHECKING

from common.errors import RequestError
from common.frames import framed
from common.protocol import Body, Chunk
from common.transfer import CHUNK_BYTES
from orchestrator.budgets import OF_A_DOWNLOAD
from orchestrator.turns import Turns
from orchestrator.weight_store import StorageFailed, UnknownWeights

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from common.ids import GatewayId, WeightsId
    from orchestrator.budgets import MemoryBudget
    from orchestrator.live_runs import LiveRuns
    from orchestrator.runs import Run
    from orchestrator.tally import Tally
    from orchestrator.weight_store import WeightStore

KEPT_CHUNKS = 10
DOWNLOADS_AT_ONCE = 8  # side by side, so that a chunk is read and packed once for all of them


class OffsetPastEnd(RequestError):
    """A caller holds more bytes than the body has."""

    field = "offset"

    def __init__(self, *, got: int, length: int) -> None:
        super().__init__(f"offset {got} is past the end, the weights have {length} bytes")


class Downloads:
    """Reads weights for those who may have them."""

    def __init__(
        self, runs: LiveRuns, weights: WeightStore, memory: MemoryBudget, tally: Tally
    ) -> None:
        self._runs = runs
        self._weights = weights
        self._memory = memory
        self._tally = tally
        self._chunks = RecentChunks(weights)
        self._turns = Turns(DOWNLOADS_AT_ONCE)

    async def for_operator(self, digest: WeightsId, offset: int) -> AsyncIterator[Body | Chunk]:
        """Yield the declaration of any stored weights, then their chunks from `offset` on."""
        length = self._weights.byte_length(digest)
        if offset > length:
            raise OffsetPastEnd(got=offset, length=length)
        yield Body(digest, length, offset)
        with self._chunks.shared(digest):
            async with self._memory.lent(OF_A_DOWNLOAD):
                while offset < length:
                    chunk = await self._chunks.get(digest, offset)
                    yield chunk
                    offset += len(chunk.data)

    async def for_gateway(
        self, gateway: GatewayId, digest: WeightsId, offset: int
    ) -> AsyncGenerator[Body | Chunk]:
        """Yield weights of a run that the gateway takes part in, as `for_operator` does.

        The run goes on, or is one of the last that ended.
        """
        of = [live for live in self._runs.at_hand() if _may_have(live.run, gateway, digest)]
        if not of:
            raise UnknownWeights(digest)
        with self._chunks.shared(digest):  # also with those who wait for their turn
            async with self._turns.turn():
                async for part in self.for_operator(digest, offset):
                    if isinstance(part, Chunk):
                        of[0].bytes_sent += len(part.data)
                        self._tally.weight_bytes += len(part.data)
                    yield part


class RecentChunks:
    """The chunks that were read last: those who fetch the same weights share them, packed.

    Once nobody fetches the weights, none of them is kept: their file may be restored meanwhile.
    """

    def __init__(self, weights: WeightStore) -> None:
        self._weights = weights
        self._sharing: Counter[WeightsId] = Counter()
        self._recent: OrderedDict[tuple[WeightsId, int], asyncio.Future[Chunk]] = OrderedDict()

    @contextmanager
    def shared(self, digest: WeightsId) -> Iterator[None]:
        """Keep chunks of these weights inside the block."""
        self._sharing[digest] += 1
        try:
            yield
        finally:
            self._sharing[digest] -= 1
            if not self._sharing[digest]:
                del self._sharing[digest]
                for key in [key for key in self._recent if key[0] == digest]:
                    del self._recent[key]

    async def get(self, digest: WeightsId, offset: int) -> Chunk:
        """Return what stands at `offset`, up to a multiple of CHUNK_BYTES; raise StorageFailed."""
        key = (digest, offset)
        reading = self._recent.get(key)
        if reading is None:
            loop = asyncio.get_running_loop()
            reading = loop.run_in_executor(None, self._read, digest, offset)
            self._recent[key] = reading
            if len(self._recent) > KEPT_CHUNKS:
                self._recent.popitem(last=False)
        else:
            self._recent.move_to_end(key)
        await asyncio.wait([reading])  # which goes on for others where this caller is gone
        try:
            return reading.result()
        except StorageFailed:
            self._recent.pop(key, None)  # perhaps it can be read later
            raise

    def _read(self, digest: WeightsId, offset: int) -> Chunk:
        length = CHUNK_BYTES - offset % CHUNK_BYTES
        data = self._weights.read(digest, offset, length)
        if not data:
            raise StorageFailed(OSError(EIO, "a stored file became shorter"))
        return framed(offset, data)


def _may_have(run: Run, gateway: GatewayId, digest: WeightsId) -> bool:
    parent = None if run.round is None else run.round.parent
    named = {run.plan.initial_weights, run.weights, run.model, parent}
    return gateway in run.participants and digest in named
