"""An update's way into the sum: admitted, staged, checked, recorded, folded, acknowledged."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from common.errors import ConflictError, FederationError, UnavailableError
from common.protocol import Body, Receipt, UpdateHeader, UpdateKey, UploadState
from common.transfer import CHUNK_BYTES, LengthMismatch
from orchestrator.admission import check_header, has_declined, is_counted
from orchestrator.aggregation import Accumulator
from orchestrator.decoding import Decoded
from orchestrator.events import GatewayDeclined, UpdateAccepted
from orchestrator.pace import Pace
from orchestrator.staging import Slot
from orchestrator.turns import Turns
from orchestrator.uploads import StagedBytesDamaged
from orchestrator.weight_store import DamagedWeights, UnknownWeights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from typing import TypeVar

    from common.ids import GatewayId
    from common.protocol import Chunk, Decline
    from common.weights import Layout
    from orchestrator.aggregation import Values
    from orchestrator.ledger_heads import LedgerHeads
    from orchestrator.live_runs import LiveRun, LiveRuns
    from orchestrator.runs import Run
    from orchestrator.staging import Staging
    from orchestrator.uploads import Upload
    from orchestrator.weight_store import WeightStore

    ResultT = TypeVar("ResultT")

CHECKING_THREADS = FOLDING_THREADS = 2
UPLOADS_AT_ONCE = 1  # fills two cores: one sends, one takes; all that is fast is in memory
TOGETHER = 4  # chunks: to wake a thread for each cost as much as the chunk


async def _nothing_to_say() -> None:
    pass


class Submissions:
    """What gateways send for the open rounds."""

    def __init__(
        self,
        runs: LiveRuns,
        heads: LedgerHeads,
        staging: Staging,
        weights: WeightStore,
        max_update_bytes: int,
    ) -> None:
        """Stage what comes in `staging`; what a plan has kept goes to `weights`."""
        self._runs = runs
        self._heads = heads
        self._staging = staging
        self._weights = weights
        self._max_update_bytes = max_update_bytes
        self._turns = Turns(UPLOADS_AT_ONCE)
        self._checking = ThreadPoolExecutor(CHECKING_THREADS, thread_name_prefix="check")
        self._helpers = ThreadPoolExecutor(FOLDING_THREADS, thread_name_prefix="add")
        self._folding = ThreadPoolExecutor(1, thread_name_prefix="fold")  # one sum, one thread

    def get_upload(self, gateway: GatewayId, key: UpdateKey, digest: str) -> UploadState:
        """Return how much of an update has arrived; raise what refuses the update."""
        live = self._runs.get(key.run_id)
        if is_counted(live.run, gateway, key, digest):
            return UploadState(offset=0, received=True)
        slot = Slot(key.run_id, key.round, gateway)
        return UploadState(offset=self._staging.held(slot, digest), received=False)

    async def submit(
        self,
        gateway: GatewayId,
        header: UpdateHeader,
        chunks: AsyncIterator[Chunk],
        go_ahead: Callable[[], Awaitable[object]] = _nothing_to_say,
    ) -> Receipt:
        """Return once the update is counted; one that is refused changes nothing.

        A transfer that is cut off keeps what has come, for the next one to go on from. The head of
        the gateway's ledger is countersigned and kept before the first byte is taken.

        Args:
            gateway: whose update it is.
            header: what was said of it.
            chunks: its bytes, from `header.body.offset` on.
            go_ahead: tells the gateway that it is its turn to send.
        """
        live = self._runs.get(header.key.run_id)
        already = self._is_counted(live, gateway, header)
        with self._runs.halting():
            countersigned = self._heads.confirm(gateway, header.ledger_head)
        receipt = Receipt(header.key, header.body.digest, countersigned)
        if already:
            return receipt
        slot = Slot(header.key.run_id, header.key.round, gateway)
        form = live.run.plan.update_form
        limit = min(self._max_update_bytes, longest(form.layout))
        with self._staging.receiving(slot, header.body, form, limit=limit) as upload:
            async with self._turns.turn():
                await go_ahead()
                try:
                    await self._take(live, gateway, header, upload, chunks)
                except FederationError as error:
                    if not is_as_good(upload, error):
                        self._staging.let_go(upload)
                    raise
                self._staging.let_go(upload)
        return receipt

    async def count_kept(self, live: LiveRun) -> None:
        """Count again what a restart left awaited and was kept: nobody has to send it again."""
        run = live.run
        if run.round is None or not run.plan.keep_updates:
            return
        for gateway, digest in sorted(run.round.awaited.items()):
            with suppress(UnknownWeights, DamagedWeights, ConflictError):  # or it comes again
                data = await to_its_end(self._checking, partial(self._weights.get, digest))
                form = run.plan.update_form
                update = Decoded(np.frombuffer(data, np.uint8, offset=len(form.header)), form)
                key, body = UpdateKey(run.run_id, run.round.number), Body(digest, len(data))
                header = UpdateHeader(key, run.plan_digest, run.round.parent, body)
                await self._add(live, gateway, header, update)

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
        self._helpers.shutdown()

    @staticmethod
    def _is_counted(live: LiveRun, gateway: GatewayId, header: UpdateHeader) -> bool:
        if is_counted(live.run, gateway, header.key, header.body.digest):
            return True
        check_header(live.run, header)
        return False

    async def _take(
        self,
        live: LiveRun,
        gateway: GatewayId,
        header: UpdateHeader,
        upload: Upload,
        chunks: AsyncIterator[Chunk],
    ) -> None:
        """Receive an update, check it, count it."""
        await self._receive(live, upload, chunks)
        update = await to_its_end(self._checking, upload.checked)
        if live.run.plan.keep_updates:
            await to_its_end(self._checking, partial(upload.keep, self._weights))
        await self._add(live, gateway, header, update)

    async def _add(
        self, live: LiveRun, gateway: GatewayId, header: UpdateHeader, update: Values
    ) -> None:
        add = self._count(live, gateway, header, update)
        if add is None:
            return
        try:
            await to_its_end(self._folding, add)
        except UnavailableError:
            self._runs.doubt(live, lost_sum=True)  # perhaps a part of the update is in it
            raise

    async def _receive(self, live: LiveRun, upload: Upload, chunks: AsyncIterator[Chunk]) -> None:
        """Let a thread take some chunks while the next ones come; keep all, whatever ends it."""
        loop, pace = asyncio.get_running_loop(), Pace()
        taking: asyncio.Future[None] = loop.create_future()
        taking.set_result(None)
        some: list[Chunk] = []
        try:
            while (chunk := await pace.next_of(chunks)) is not None:
                live.bytes_received += len(chunk.data)
                some.append(chunk)
                if len(some) == TOGETHER:
                    await asyncio.wait([taking])
                if taking.done():
                    taking.result()
                    taking = loop.run_in_executor(self._checking, upload.take_all, some)
                    some = []
        finally:
            await asyncio.wait([taking])  # or its file would be let go while it writes
            taking.result()
            upload.take_all(some)

    def _count(
        self, live: LiveRun, gateway: GatewayId, header: UpdateHeader, update: Values
    ) -> Callable[[], None] | None:
        """Record a checked update; return what adds it to the sum, if it was not there.

        Nothing may be awaited before that is given to the folding thread: the sum is complete once
        all that was given to it is done.
        """
        if self._is_counted(live, gateway, header):
            return None
        remaining_s = self._runs.remaining_s(live)
        plan, invited = live.run.plan, () if live.run.round is None else live.run.round.invited
        if live.sum is None:
            total = sum(plan.weight(member) for member in invited)
            memory, helpers = live.sum_memory, self._helpers
            live.sum = Accumulator(plan.task.layout.size, total, memory=memory, helpers=helpers)
            live.sum_memory = live.sum.memory
        self._runs.record(live, UpdateAccepted(gateway, header.body.digest, remaining_s))
        return partial(live.sum.add, gateway, update, plan.weight(gateway))


async def to_its_end(threads: ThreadPoolExecutor, work: Callable[[], ResultT]) -> ResultT:
    """Return what `work` returns, done in a thread; broken off, wait until it has ended.

    Otherwise a file would be let go while a thread still uses it.
    """
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        await asyncio.wait([future])
        future.exception()  # it is for nobody any more: the call is gone
        raise
    return future.result()


def is_as_good(upload: Upload, error: FederationError) -> bool:
    """Return whether what has come of an upload is as good as before an error."""
    if isinstance(error, LengthMismatch):
        return upload.is_short  # a connection that broke may look like the end of the body
    return isinstance(error, UnavailableError) and not isinstance(error, StagedBytesDamaged)


def open_slots(runs: Iterable[Run]) -> tuple[Slot, ...]:
    """Return the slots of the updates that may still come."""
    return tuple(
        Slot(run.run_id, run.round.number, gateway)
        for run in runs
        if run.round is not None and not run.has_ended
        for gateway in run.round.silent
    )


def longest(layout: Layout) -> int:
    """Return how many bytes an update may declare: enough to say what is wrong with most.

    A gateway that sends float32 where a shorter format was agreed shall hear so.
    """
    return 2 * layout.byte_length + CHUNK_BYTES
