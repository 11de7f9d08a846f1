"""An update's way into the sum: admitted, staged, checked, recorded, folded, acknowledged."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from common.errors import FederationError
from common.protocol import Receipt, UploadState
from common.transfer import CHUNK_BYTES
from common.weights import Weights
from orchestrator.admission import check_header, has_declined, is_counted
from orchestrator.aggregation import Accumulator, check_range
from orchestrator.events import GatewayDeclined, UpdateAccepted
from orchestrator.staging import Slot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from typing import TypeVar

    from common.ids import GatewayId
    from common.protocol import Chunk, Decline, UpdateHeader, UpdateKey
    from common.weights import Layout
    from orchestrator.ledger_heads import LedgerHeads
    from orchestrator.live_runs import LiveRun, LiveRuns
    from orchestrator.runs import Run
    from orchestrator.staging import Staging, Upload

    ResultT = TypeVar("ResultT")

CHECKING_THREADS = 2


class Submissions:
    """What gateways send for the open rounds."""

    def __init__(
        self, runs: LiveRuns, heads: LedgerHeads, staging: Staging, max_update_bytes: int
    ) -> None:
        self._runs = runs
        self._heads = heads
        self._staging = staging
        self._max_update_bytes = max_update_bytes
        self._checking = ThreadPoolExecutor(CHECKING_THREADS, thread_name_prefix="check")
        self._folding = ThreadPoolExecutor(1, thread_name_prefix="fold")  # one sum, one thread

    def get_upload(self, gateway: GatewayId, key: UpdateKey, digest: str) -> UploadState:
        """Return how much of an update has arrived; raise what refuses the update."""
        live = self._runs.get(key.run_id)
        if is_counted(live.run, gateway, key, digest):
            return UploadState(offset=0, received=True)
        slot = Slot(key.run_id, key.round, gateway)
        return UploadState(offset=self._staging.held(slot, digest), received=False)

    async def submit(
        self, gateway: GatewayId, header: UpdateHeader, chunks: AsyncIterator[Chunk]
    ) -> Receipt:
        """Return once the update is counted; one that is refused changes nothing.

        A transfer that is cut off keeps what has come, for the next one to go on from. The head of
        the gateway's ledger is countersigned and kept before the first byte is taken.
        """
        live = self._runs.get(header.key.run_id)
        already = self._is_counted(live, gateway, header)
        with self._runs.halting():
            countersigned = self._heads.confirm(gateway, header.ledger_head)
        receipt = Receipt(header.key, header.body.digest, countersigned)
        if already:
            return receipt
        slot = Slot(header.key.run_id, header.key.round, gateway)
        limit = min(self._max_update_bytes, longest(live.run.plan.task.layout))
        with self._staging.receiving(slot, header.body, limit=limit) as upload:
            try:
                update = await self._receive(live, upload, chunks)
                folded = self._count(live, gateway, header, update)
            except FederationError:
                upload.discard()
                raise
            upload.discard()  # its bytes stay mapped until they are folded
            await asyncio.shield(folded)
        return receipt

    def decline(self, gateway: GatewayId, decline: Decline) -> Receipt:
        """Record that no update will come from the gateway for the round."""
        live = self._runs.get(decline.key.run_id)
        if not has_declined(live.run, gateway, decline.key):
            remaining_s = self._runs.remaining_s(live)
            self._runs.record(live, GatewayDeclined(gateway, decline.refusal, remaining_s))
        return Receipt(decline.key, None)

    async def after_folds(self, work: Callable[[], ResultT]) -> ResultT:
        """Return what `work` returns, run in the folding thread after every fold before it."""
        return await asyncio.get_running_loop().run_in_executor(self._folding, work)

    def close(self) -> None:
        """Let the threads go."""
        self._checking.shutdown()
        self._folding.shutdown()

    @staticmethod
    def _is_counted(live: LiveRun, gateway: GatewayId, header: UpdateHeader) -> bool:
        if is_counted(live.run, gateway, header.key, header.body.digest):
            return True
        check_header(live.run, header)
        return False

    async def _receive(
        self, live: LiveRun, upload: Upload, chunks: AsyncIterator[Chunk]
    ) -> Weights:
        async for chunk in chunks:
            live.bytes_received += len(chunk.data)
            await self._in_thread(partial(upload.take, chunk))
        layout = live.run.plan.task.layout
        return await self._in_thread(partial(_checked, upload, layout))

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        """Return what `work` returns; a call that is broken off waits until it has ended.

        Otherwise the upload's slot would be free while a thread still writes to its file.
        """
        future = asyncio.get_running_loop().run_in_executor(self._checking, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def _count(
        self, live: LiveRun, gateway: GatewayId, header: UpdateHeader, update: Weights
    ) -> asyncio.Future[None]:
        """Record a checked update and send it to the folding thread, with no await between."""
        loop = asyncio.get_running_loop()
        if self._is_counted(live, gateway, header):
            return loop.run_in_executor(self._folding, lambda: None)
        remaining_s = self._runs.remaining_s(live)
        plan, invited = live.run.plan, () if live.run.round is None else live.run.round.invited
        if live.sum is None:
            total = sum(plan.weight(member) for member in invited)
            live.sum = Accumulator(plan.task.layout.size, total)
        self._runs.record(live, UpdateAccepted(gateway, header.body.digest, remaining_s))
        weight = plan.weight(gateway)
        return loop.run_in_executor(self._folding, live.sum.add, gateway, update.values, weight)


def open_slots(runs: Iterable[Run]) -> tuple[Slot, ...]:
    """Return the slots of the updates that may still come."""
    return tuple(
        Slot(run.run_id, run.round.number, gateway)
        for run in runs
        if run.round is not None and not run.has_ended
        for gateway in run.round.silent
    )


def longest(layout: Layout) -> int:
    """Return how many bytes an update may declare: enough to say what is wrong with most."""
    return 2 * layout.byte_length + CHUNK_BYTES


def _checked(upload: Upload, layout: Layout) -> Weights:
    """Check length, digest, names, shapes, element type, finiteness and range, in this order."""
    update = Weights.from_bytes(upload.checked(), layout)
    check_range(update.values, layout)
    return update
