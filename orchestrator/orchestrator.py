"""The orchestrator: its parts, and the coroutine that drives each run to its end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Self

import structlog

from common.disk import SYSTEM_DISK
from common.errors import UnavailableError
from common.protocol import Config, Effective, Refusal
from common.retry import Backoff
from orchestrator.admission import check_answer, check_task
from orchestrator.audit_log import SEAL_S, AuditLog, AuditLogDamaged
from orchestrator.auditing import process_started
from orchestrator.budgets import MIB, DiskReserve, MemoryBudget, Room
from orchestrator.database import open_database
from orchestrator.downloads import Downloads
from orchestrator.events import (
    DeadlinePassed,
    PlanAccepted,
    PlanRefused,
    RetryPostponed,
    RoundOpened,
    RunFailed,
    SitesAwaited,
    UpdateLost,
)
from orchestrator.fencing import Fence, JournalFailed
from orchestrator.in_process import InProcessClient
from orchestrator.journal import Journal
from orchestrator.ledger_heads import LedgerHeads
from orchestrator.lineage_store import LineageStore
from orchestrator.live_runs import LiveRuns
from orchestrator.operations import Operations
from orchestrator.publishing import SumIncomplete, complete, publish
from orchestrator.record import Record
from orchestrator.refusals import Refusals
from orchestrator.sessions import Sessions
from orchestrator.signing_key import load_or_make, refuse_unreadable
from orchestrator.staging import Staging
from orchestrator.steps import Await, Complete, PassDeadline, Publish, Rest, next_step
from orchestrator.submissions import Submissions, open_slots
from orchestrator.tally import Tally
from orchestrator.weight_store import DamagedWeights, StorageFailed, WeightStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from common.client import OrchestratorClient
    from common.clock import Clock
    from common.disk import Disk
    from common.ids import GatewayId, PlanId, RunId
    from common.signatures import SignedAcceptance
    from orchestrator.config import Limits
    from orchestrator.events import RunEvent
    from orchestrator.live_runs import LiveRun
    from orchestrator.steps import Decision, Step

log = structlog.get_logger()

SUCCESSOR_CHECK_S = 6.0
PASSING = (JournalFailed, StorageFailed, DamagedWeights)  # a backup may be put back, too


class Orchestrator:
    """Runs of a federation over one state folder; what a service asks lies in its parts."""

    def __init__(  # noqa: PLR0913 - all that it is made of
        self,
        state: Path,
        database_url: str,
        *,
        federation: str,
        clock: Clock,
        limits: Limits,
        disk: Disk = SYSTEM_DISK,
        shared: Path | None = None,
    ) -> None:
        """Take over: an older process on the same database can write no more.

        Weights and signing key lie in the folder `shared`, everything else in `state`.
        """
        shared = shared or state
        for folder in (state, shared):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.clock = clock
        self._engine = open_database(database_url)
        self.fence = fence = Fence(self._engine)
        self.epoch = fence.epoch
        self._weights = WeightStore(shared / "weights", fence, disk)
        self._staging = Staging(state / "uploads", disk)
        self.memory = memory = MemoryBudget(limits.in_flight_mib * MIB)
        self.tally = Tally()
        reserve = partial(DiskReserve, disk, reserve=limits.disk_reserve_mib * MIB)
        self._drivers: set[asyncio.Task[None]] = set()
        refuse_unreadable(shared)
        key = cache(partial(load_or_make, shared))
        self.audit = AuditLog(fence, clock, federation, key)
        self.lineage = LineageStore(fence, federation, key)
        self.runs = LiveRuns(Journal(fence, clock), Record(self.audit, self.lineage), clock)
        self.refused_calls = Refusals(self.audit, clock, of_one=60, of_all=6000)
        self.refused_callers = Refusals(self.audit, clock, of_one=20, of_all=200)
        self.ledger_heads = LedgerHeads(fence, federation, key)
        self.sessions = Sessions(self.runs, self._weights)
        self.submissions = Submissions(
            self.runs,
            self.ledger_heads,
            self._staging,
            self._weights,
            Room(memory, reserve(state / "uploads"), limits),
            self.tally,
        )
        self.downloads = Downloads(self.runs, self._weights, memory, self.tally)
        self.operations = Operations(
            federation,
            self.runs,
            self._weights,
            self.audit,
            Room(memory, reserve(shared / "weights"), limits),
            self._drive,
        )

    def start(self, *, restart_grace_s: float) -> Self:
        """Go on with every run that has not ended; they get at least `restart_grace_s`."""
        self.audit.record(process_started(self.epoch))
        self.runs.resume(restart_grace_s)
        self._sweep()
        for live in reversed(self.runs.going_on()):
            self._drive(live.run.run_id)
        self._run(self._look_for_successor(), "successor")
        self._run(self._seal_record(), "record")
        return self

    async def close(self) -> None:
        """Stop acting; what was recorded goes on at the next start."""
        self.sessions.close()
        for driver in self._drivers:
            driver.cancel()
        await asyncio.gather(*self._drivers, return_exceptions=True)
        self.submissions.close()
        self._engine.dispose()

    def seen_by(self, gateway: GatewayId) -> OrchestratorClient:
        """Return this orchestrator as `gateway` sees it, without a socket."""
        return InProcessClient(self, gateway)

    def get_config(self, gateway: GatewayId, run_id: RunId) -> Config:
        """Return the plan of a run, and what it gives `gateway`; raise NotInvited."""
        live = self.runs.get_for(gateway, run_id)
        run = live.run
        assigned = run.plan.assigned(gateway)
        return Config(run_id, live.plan_bytes, run.plan_digest, assigned, run.plan_signature)

    def accept_plan(
        self,
        gateway: GatewayId,
        run_id: RunId,
        plan_digest: PlanId,
        answer: Effective | Refusal,
        signed: SignedAcceptance | None = None,
    ) -> None:
        """Record a gateway's answer to a plan, and its signature, which was checked before.

        Raises what `check_answer` raises.
        """
        live = self.runs.get_for(gateway, run_id)
        check_answer(live.run, gateway, plan_digest, answer)
        versions, remaining_s = self.sessions.versions(gateway), self.runs.remaining_s(live)
        before = live.run.answers.get(gateway)
        if answer == before or (isinstance(before, Refusal) and isinstance(answer, Refusal)):
            return  # said before, perhaps in a run that has ended since; a refusal is one
        if isinstance(answer, Effective):
            if versions is not None:
                check_task(live.run, versions)
            self.runs.record(live, PlanAccepted(gateway, answer, remaining_s, signed))
        else:
            self.runs.record(live, PlanRefused(gateway, answer, remaining_s))

    async def train_fed_avg(self, run_id: RunId) -> None:
        """Drive one run from where it stands to its end: gather, open, collect, average, publish.

        While the database or the disk is away, its steps are tried again and again.

        Source:
            McMahan et al. 2017, Algorithm 1, the server's side.
        """
        live, waits = self.runs.get(run_id), Backoff().waits()
        while True:
            try:
                self.runs.settle(live)
                await self.submissions.count_kept(live)
                if isinstance(step := self._next_step(live), Rest):
                    return
                await self._take(live, step)
                waits = Backoff().waits()
            except PASSING as error:
                wait_s = next(waits)
                log.warning("will_try_again", run=run_id, wait_s=wait_s, why=str(error))
                await self.clock.sleep_until(self.clock.now() + wait_s)

    def _next_step(self, live: LiveRun) -> Decision:
        is_overdue = self.clock.now() >= live.deadline
        return next_step(live.run, self.runs.presence, is_overdue=is_overdue)

    async def _take(self, live: LiveRun, step: Step) -> None:
        match step:
            case Await():
                await self._change(live)
            case RetryPostponed() | SitesAwaited() | RoundOpened() | RunFailed():
                self.runs.record(live, step)
            case PassDeadline():
                self.runs.record(live, *map(UpdateLost, step.lost), DeadlinePassed())
            case Publish():
                made = partial(publish, live.run, live.sum, self._weights, self.submissions.helpers)
                await self._make(live, made)
            case Complete():
                await self._make(live, partial(complete, live.run, self._weights))

    async def _make(self, live: LiveRun, work: Callable[[], RunEvent]) -> None:
        """Make weights durable, then record their event, unless the run was ended meanwhile."""
        try:
            event = await self.submissions.after_folds(work)
        except SumIncomplete:
            self.runs.doubt(live, lost_sum=True)
            return
        if not live.run.has_ended:
            self.runs.record(live, event)
        self._sweep()

    def _sweep(self) -> None:
        try:
            self._staging.sweep(open_slots(live.run for live in self.runs.going_on()))
        except OSError as error:
            log.warning("not_swept", why=error.strerror)  # the next sweep deletes what is left

    async def _change(self, live: LiveRun) -> None:
        """Return at the next change of the run, or at its deadline if that is still to come."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(live.changed.next.wait())]
        if self.clock.now() < live.deadline:
            waits.append(asyncio.create_task(self.clock.sleep_until(live.deadline)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _look_for_successor(self) -> None:
        """Stop soon after another orchestrator took over, even where there is nothing to record.

        Otherwise gateways that were connected before would stay, and hear of nothing more.
        """
        while not self.runs.halted.is_set():
            await self.clock.sleep_until(self.clock.now() + SUCCESSOR_CHECK_S)
            with suppress(UnavailableError), self.runs.halting():
                self.fence.check()

    async def _seal_record(self) -> None:
        """Sign the audit log's head from time to time, for gateways to keep."""
        while not self.runs.halted.is_set():
            await self.clock.sleep_until(self.clock.now() + SEAL_S)
            with suppress(UnavailableError, AuditLogDamaged), self.runs.halting():
                self.audit.seal()
            self.refused_calls.tell_withheld()
            self.refused_callers.tell_withheld()

    def _drive(self, run_id: RunId) -> None:
        self._run(self.train_fed_avg(run_id), f"run {run_id}")

    def _run(self, work: Coroutine[None, None, None], name: str) -> None:
        driver = asyncio.create_task(work, name=name)
        self._drivers.add(driver)
        driver.add_done_callback(self._driven)

    def _driven(self, driver: asyncio.Task[None]) -> None:
        self._drivers.discard(driver)
        error = None if driver.cancelled() else driver.exception()
        if error is not None:
            log.error("run_broke", task=driver.get_name(), exc_info=error)
            self.runs.halt(error)
