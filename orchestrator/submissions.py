"""An update's way into the sum: admitted, staged, checked, recorded, folded, acknowledged."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from common.errors import ConflictError, FederationError, RequestError, UnavailableError
from common.protocol import Body, Receipt, UpdateHeader, UpdateKey, UploadState
from common.threads import to_its_end
from common.transfer import CHUNK_BYTES, LengthMismatch
from orchestrator.admission import (
    check_beside_others,
    check_header,
    has_declined,
    is_counted,
    round_for,
)
from orchestrator.aggregation import Accumulator
from orchestrator.budgets import OF_AN_UPLOAD
from orchestrator.decoding import Decoded
from orchestrator.events import GatewayDeclined, UpdateAccepted, UpdateRefused, UpdateSetAside
from orchestrator.norms import factor
from orchestrator.pace import Pace
from orchestrator.staging import Slot
from orchestrator.turns import Turns
from orchestrator.uploads import StagedBytesDamaged
from orchestrator.verdicts import reason_of
from orchestrator.weight_store import DamagedWeights, UnknownWeights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from typing import TypeVar

    from common.ids import GatewayId
    from common.protocol import Chunk, Countersignature, Decline
    from common.weights import Layout
    from orchestrator.aggregation import Values
    from orchestrator.budgets import Opening, Room
    from orchestrator.ledger_heads import LedgerHeads
    from orchestrator.live_runs import LiveRun, LiveRuns
    from orchestrator.rounds import Round
    from orchestrator.runs import Run
    from orchestrator.staging import Staging
    from orchestrator.tally import Tally
    from orchestrator.uploads import Upload
    from orchestrator.weight_store import WeightStore

    ResultT = TypeVar("ResultT")

CHECKING_THREADS = FOLDING_THREADS = 2
UPLOADS_AT_ONCE = 1  # fills two cores: one sends, one takes; all that is fast is in memory
TOGETHER = 4  # chunks: to wake a thread for each cost as much as the chunk


@dataclass(frozen=True)
class Checked:
    """An update that may be added, and its L2 norm; None: it was checked before norms were."""

    values: Values
    norm: float | None


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
        room: Room,
        tally: Tally,
    ) -> None:
        """Stage what comes in `staging`, within `room`; what a plan has kept goes to `weights`."""
        self._runs = runs
        self._heads = heads
        self._staging = staging
        self._weights = weights
        self._room = room
        self._tally = tally
        self._turns = Turns(UPLOADS_AT_ONCE)
        self._checking = ThreadPoolExecutor(CHECKING_THREADS, thread_name_prefix="check")
        self._folding = ThreadPoolExecutor(1, thread_name_prefix="fold")  # one sum, one thread
        self.helpers = ThreadPoolExecutor(FOLDING_THREADS, thread_name_prefix="add")  # of that one

    def get_upload(self, gateway: GatewayId, key: UpdateKey, digest: str) -> UploadState:
        """Return how much of an update has arrived; raise what refuses the update."""
        live = self._runs.get_for(gateway, key.run_id)
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
        """Return once the update is counted; one that is refused is not, whatever it holds.

        What is wrong with the content of a whole update is recorded, and final for its round.
        A transfer that is cut off keeps what has come, for the next one to go on from. The head of
        the gateway's ledger is countersigned and kept before the first byte is taken.

        Args:
            gateway: whose update it is.
            header: what was said of it.
            chunks: its bytes, from `header.body.offset` on.
            go_ahead: tells the gateway that it is its turn to send.
        """
        live = self._runs.get_for(gateway, header.key.run_id)
        already = self._is_counted(live, gateway, header)
        with self._runs.halting():
            countersigned = self._heads.confirm(gateway, header.ledger_head)
        receipt = partial(self._receipt, live, gateway, header, countersigned)
        if already:
            return receipt()
        slot = Slot(header.key.run_id, header.key.round, gateway)
        form = live.run.plan.update_form
        limit = min(self._room.limits.max_update_bytes, longest(form.layout))
        with self._staging.receiving(slot, header.body, form, limit=limit) as upload:
            self._room.disk.check(header.body.byte_length - header.body.offset)
            async with self._turns.turn(), self._room.memory.lent(OF_AN_UPLOAD):
                await go_ahead()
                try:
                    await self._take(live, gateway, header, upload, chunks)
                except FederationError as error:
                    if not is_as_good(upload, error):
                        self._staging.let_go(upload)
                    raise
                self._staging.let_go(upload)
        return receipt()

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
                known = run.round.norms.get(gateway)
                await self._add(live, gateway, header, Checked(update, known))

    def decline(self, gateway: GatewayId, decline: Decline) -> Receipt:
        """Record that no update will come from the gateway for the round."""
        live = self._runs.get_for(gateway, decline.key.run_id)
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
        self.helpers.shutdown()

    @staticmethod
    def _receipt(
        live: LiveRun,
        gateway: GatewayId,
        header: UpdateHeader,
        countersigned: Countersignature | None,
    ) -> Receipt:
        state = live.run.round
        is_current = state is not None and state.number == header.key.round
        set_aside = is_current and state is not None and gateway in state.set_aside
        return Receipt(header.key, header.body.digest, countersigned, set_aside)

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
        """Receive an update, check it, count it; record what is wrong with it."""
        attempt = live.run.round.attempt if live.run.round else 0
        note = partial(self._note, live, gateway, (header.key.round, attempt))
        await self._receive(upload, chunks, note)
        try:
            update = await to_its_end(self._checking, upload.checked)
            state = round_for(live.run, gateway, header.key)
            norm = state.norms.get(gateway, upload.norm)
            check_beside_others(state, gateway, header.body.digest, norm)
            if live.run.plan.keep_updates:
                await to_its_end(self._checking, partial(upload.keep, self._weights))
            await self._add(live, gateway, header, Checked(update, norm))
        except FederationError as error:
            self._refuse(live, gateway, header, error)
            raise

    def _refuse(
        self, live: LiveRun, gateway: GatewayId, header: UpdateHeader, error: FederationError
    ) -> None:
        """Record a verdict on an update, unless its round has moved on meanwhile."""
        reason = reason_of(error)
        if reason is None:
            return
        with suppress(ConflictError, RequestError):
            if not self._is_counted(live, gateway, header):
                left_s = self._runs.remaining_s(live)
                refused = UpdateRefused(gateway, header.body.digest, reason, left_s)
                self._runs.record(live, refused)

    async def _add(
        self, live: LiveRun, gateway: GatewayId, header: UpdateHeader, update: Checked
    ) -> None:
        add = self._count(live, gateway, header, update)
        if add is None:
            return
        try:
            await to_its_end(self._folding, add)
        except UnavailableError:
            self._runs.doubt(live, lost_sum=True)  # perhaps a part of the update is in it
            raise

    def _note(self, live: LiveRun, gateway: GatewayId, opening: Opening, count: int) -> None:
        """Count bytes that came; raise RoundBytesTaken or DiskNearlyFull."""
        live.bytes_received += count
        self._tally.update_bytes += count
        body = max(CHUNK_BYTES, live.run.plan.task.layout.byte_length)
        times = self._room.limits.bodies_per_round
        live.round_bytes.take(gateway, opening, count, limit=times * body)
        self._room.disk.check(count)

    async def _receive(
        self, upload: Upload, chunks: AsyncIterator[Chunk], note: Callable[[int], None]
    ) -> None:
        """Let a thread take some chunks while the next ones come; keep all, whatever ends it."""
        loop, pace = asyncio.get_running_loop(), Pace()
        taking: asyncio.Future[None] = loop.create_future()
        taking.set_result(None)
        some: list[Chunk] = []
        try:
            while (chunk := await pace.next_of(chunks)) is not None:
                note(len(chunk.data))
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
        self, live: LiveRun, gateway: GatewayId, header: UpdateHeader, update: Checked
    ) -> Callable[[], None] | None:
        """Record a checked update; return what adds it to the sum, if it is to be added.

        Nothing may be awaited before that is given to the folding thread: the sum is complete once
        all that was given to it is done.
        """
        if self._is_counted(live, gateway, header):
            return None
        digest, remaining_s = header.body.digest, self._runs.remaining_s(live)
        state = round_for(live.run, gateway, header.key)
        norm = state.norms.get(gateway, update.norm)  # what was received before keeps its factor
        check_beside_others(state, gateway, digest, norm)
        if gateway in state.quarantined:
            self._runs.record(live, UpdateSetAside(gateway, digest, remaining_s, norm))
            return None
        total = self._sum_of(live, state)
        self._runs.record(live, UpdateAccepted(gateway, digest, remaining_s, norm))
        weight, scale = live.run.plan.weight(gateway), factor(norm, state.norm_bound)
        return partial(total.add, gateway, update.values, weight, scale)

    def _sum_of(self, live: LiveRun, state: Round) -> Accumulator:
        """Return the sum of the round, which begins with the first update."""
        if live.sum is None:
            plan = live.run.plan
            total = sum(plan.weight(member) for member in state.invited)
            memory, helpers = live.sum_memory, self.helpers
            live.sum = Accumulator(plan.task.layout.size, total, memory=memory, helpers=helpers)
            live.sum_memory = live.sum.memory
        return live.sum


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
