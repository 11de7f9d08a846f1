"""The runs of this process: record an event, then let everyone concerned act on it.

All of it lives on the event loop, and recording does not await: between a decision and its durable
event nothing else can happen. A run that has ended leaves memory: what is asked of it later, the
journal answers.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, reduce
from itertools import accumulate
from typing import TYPE_CHECKING

import structlog

from common import wire
from common.audit import ORCHESTRATOR
from orchestrator.admission import NotInvited, UnknownRun
from orchestrator.auditing import Step
from orchestrator.budgets import RoundBytes
from orchestrator.events import (
    Restarted,
    RetryPostponed,
    RoundOpened,
    RoundPublished,
    RunEvent,
    RunStarted,
    SitesAwaited,
)
from orchestrator.fencing import JournalFailed, Superseded
from orchestrator.runs import advance_run, begin, concerned
from orchestrator.selection import Presence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from common.clock import Clock
    from common.ids import GatewayId, PlanId, RunId
    from common.plan import Plan
    from common.signatures import PlanSignature
    from orchestrator.aggregation import Accumulator
    from orchestrator.journal import Journal, StoredRun
    from orchestrator.record import Record
    from orchestrator.runs import Run

log = structlog.get_logger()

KEPT_ENDED = 16  # runs: those that ended last are asked for most
_SETS_DEADLINE = (Restarted, RetryPostponed, SitesAwaited, RoundOpened)  # which begin something


class Bell:
    """Wakes everyone who waits for the next change."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wake those who hold `next`."""
        self._next.set()
        self._next = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """What the next ring sets; take it before looking at the state, and miss nothing."""
        return self._next


class LiveRun:
    """A run, and what of it is not in the journal."""

    def __init__(self, run: Run, plan_bytes: bytes) -> None:
        self.run = run
        self.plan_bytes = plan_bytes
        self.recorded = 0  # events in the journal
        self.deadline = 0.0  # of what is going on, on this process's clock
        self.changed = Bell()
        self.sum: Accumulator | None = None  # of the current round; None: nothing folded yet
        self.sum_memory: NDArray[np.int64] | None = None  # that rounds use one after the other
        self.bytes_received = 0
        self.round_bytes = RoundBytes()
        self.bytes_sent = 0
        self.is_in_doubt = False  # what was recorded last failed, yet may be in the journal
        self.lost_sum = False  # what was received must come again
        self.restarts = 0  # how often it had to


class LiveRuns:
    """The runs by name, and the only way to change one."""

    def __init__(self, journal: Journal, record: Record, clock: Clock) -> None:
        self.presence = Presence()
        self.halted = asyncio.Event()  # this process must stop acting
        self.failure: BaseException | None = None  # why
        self.watchers: list[Callable[[Step], None]] = []  # told of each event once it is recorded
        self._journal = journal
        self._record = record
        self._clock = clock
        self._grace_s = 0.0
        self._runs: dict[RunId, LiveRun] = {}  # that go on
        self._ended: OrderedDict[RunId, LiveRun] = OrderedDict()  # of these only the last ones
        self._bells: defaultdict[GatewayId, Bell] = defaultdict(Bell)

    def resume(self, grace_s: float) -> None:
        """Fold the journal; what goes on gets the time that was left, at least `grace_s`."""
        self._grace_s = grace_s
        for stored in self._journal.runs(ended=False):
            self._resume(stored)

    def _resume(self, stored: StoredRun) -> LiveRun:
        live = _folded(stored)
        if live.run.has_ended:
            self._retire(live)
        else:
            self.record(live, Restarted(max(self._grace_s, live.run.left_s)))
            log.info("run_resumed", run=stored.run_id, state=live.run.state.value)
            self._runs[stored.run_id] = live
            self._ring(live.run.participants)
        return live

    def create(
        self,
        run_id: RunId,
        plan: Plan,
        plan_bytes: bytes,
        digest: PlanId,
        signature: PlanSignature | None = None,
        actor: str = ORCHESTRATOR,
    ) -> LiveRun:
        """Store a new run, with who asked for it, and begin to gather its gateways.

        One that a call has stored which seemed to fail is taken up as it is.
        """
        if (stored := self._journal.run(run_id)) is not None:
            return self._resume(stored)
        first = RunStarted(plan.rounds.deadline_s)
        before = begin(run_id, plan, digest, signature)
        step = Step(before, first, advance_run(before, first))
        with self.halting():
            also = partial(self._record.write, steps=(step,), actor=actor)
            self._journal.create_run(run_id, plan_bytes, digest, first, signature, also)
        live = LiveRun(step.after, plan_bytes)
        live.recorded, live.deadline = 1, self._clock.now() + first.remaining_s
        self._runs[run_id] = live
        self._tell(step)
        self._ring(live.run.participants)
        return live

    def record(self, live: LiveRun, *events: RunEvent, actor: str = ORCHESTRATOR) -> None:
        """Append `events` to the journal, then change the run and wake those concerned.

        What of them goes on record is written with them, under the name of `actor`.

        Raises:
            IllegalTransition: one of them does not fit; none was recorded.
            Superseded: another orchestrator took over; this process halts.
            JournalFailed: the database failed; whether it took them, `settle` finds out, and until
                then nothing else is recorded of this run.
        """
        if live.run.has_ended:
            self.settle(live)  # nobody drives it any more
        if live.is_in_doubt:
            raise JournalFailed
        before, steps = live.run, _steps(live.run, events)
        if steps[-1].after == before and not any(isinstance(event, Restarted) for event in events):
            return  # repeats; after a restart the deadline has to be set anew
        try:
            with self.halting():
                also = partial(self._record.write, steps=steps, actor=actor)
                self._journal.append(before.run_id, live.recorded, events, also)
        except JournalFailed:
            self.doubt(live)
            raise
        self._advance(live, steps)

    def sign(self, live: LiveRun, signature: PlanSignature) -> None:
        """Store who orders a run that goes on and has no signature; one that is there stays."""
        if live.run.plan_signature is None and not live.run.has_ended:
            with self.halting():
                self._journal.sign_run(live.run.run_id, signature)
            live.run = replace(live.run, plan_signature=signature)

    def doubt(self, live: LiveRun, *, lost_sum: bool = False) -> None:
        """Note that the database failed, and have the one who drives the run `settle` it."""
        live.is_in_doubt = True
        live.lost_sum = live.lost_sum or lost_sum
        live.changed.ring()

    def settle(self, live: LiveRun) -> None:
        """After a failure of the database, find out what of the last record it kept.

        If it kept something, or the sum was lost, all goes on as after a restart: gateways send
        the same bytes again. What waits for a deadline has at least the grace of a restart.

        Raises:
            JournalFailed: the database fails still.
            Superseded: another orchestrator took over.
        """
        if not live.is_in_doubt:
            return
        with self.halting():
            kept = self._journal.events(live.run.run_id, after=live.recorded)
            after = reduce(advance_run, kept, live.run)
            begun = [event.remaining_s for event in kept if isinstance(event, _SETS_DEADLINE)]
            grace_s = max(self._grace_s, (begun or [self.remaining_s(live)])[-1])
            if (kept or live.lost_sum) and not after.has_ended:
                again = Restarted(grace_s)
                self._journal.append(live.run.run_id, live.recorded + len(kept), [again])
                kept = (*kept, again)
        live.is_in_doubt = live.lost_sum = False
        live.deadline = self._clock.now() + grace_s
        self._advance(live, _steps(live.run, kept))
        log.info("run_settled", run=live.run.run_id, found=len(kept))

    def get(self, run_id: RunId) -> LiveRun:
        """Return a run; raise UnknownRun.

        Raises:
            JournalFailed: it ended before those that are kept, and the database failed.
        """
        live = self._runs.get(run_id) or self._ended.get(run_id)
        if live is None:
            live = self._ended_as_stored(run_id)
            self._retire(live)
        return live

    def get_for(self, gateway: GatewayId, run_id: RunId) -> LiveRun:
        """Return a run to a gateway that takes part in it; raise UnknownRun, NotInvited.

        Of a run that ended long ago nothing but its plan is read before: its events may be many,
        and whoever has no part in it may ask without end.
        """
        live = self._runs.get(run_id) or self._ended.get(run_id)
        if live is None:
            if (plan := self._journal.plan(run_id)) is None:
                raise UnknownRun(run_id)
            gateways = wire.plan_from_bytes(plan).gateways
        else:
            gateways = live.run.participants
        if gateway not in gateways:
            raise NotInvited(f"run {run_id!r}")
        return live or self.get(run_id)

    def events(self, run_id: RunId, *, after: int = 0) -> tuple[RunEvent, ...]:
        """Return the events of a run after the first `after`, from the journal; in any thread."""
        return self._journal.events(run_id, after=after)

    def going_on(self) -> tuple[LiveRun, ...]:
        """Return every run that has not ended, the newest first."""
        return tuple(reversed(self._runs.values()))

    def at_hand(self) -> tuple[LiveRun, ...]:
        """Return those that go on, and the few that ended last."""
        return (*self._runs.values(), *self._ended.values())

    def names(self) -> tuple[RunId, ...]:
        """Return the name of every run that there ever was, the newest first."""
        return self._journal.names()[::-1]

    def ended(self) -> Iterator[Run]:
        """Yield every run that has ended as the journal has it; in any thread."""
        return (_folded(stored).run for stored in self._journal.runs(ended=True))

    def of(self, gateway: GatewayId) -> tuple[LiveRun, ...]:
        """Return the runs that have not ended and that `gateway` takes part in."""
        return tuple(r for r in self._runs.values() if gateway in r.run.participants)

    def bell(self, gateway: GatewayId) -> Bell:
        """Return what rings when something changes for `gateway`."""
        return self._bells[gateway]

    def set_connected(self, gateway: GatewayId, *, is_connected: bool) -> None:
        """Note that a gateway came or went."""
        one, was = frozenset({gateway}), self.presence
        if is_connected:
            self.presence = Presence(was.connected | one, was.left - one)
        else:
            self.presence = Presence(was.connected - one, was.left | one)
        for live in self.of(gateway):
            live.changed.ring()

    def halt(self, error: BaseException) -> None:
        """Say that this process must stop acting, and why."""
        self.failure = self.failure or error
        self.halted.set()

    def remaining_s(self, live: LiveRun) -> float:
        """Return the seconds until the deadline of what is going on."""
        return max(0.0, live.deadline - self._clock.now())

    @contextmanager
    def halting(self) -> Iterator[None]:
        """Lend a place to write from; this process halts where another one took over."""
        try:
            yield
        except Superseded as error:
            self.halt(error)
            raise

    def _advance(self, live: LiveRun, steps: Sequence[Step]) -> None:
        """Take the state after `steps`, whose events are in the journal, and act on them."""
        before = live.run
        for step in steps:
            live.run = step.after
        live.recorded += len(steps)
        self._tell(*steps)
        for event in (step.event for step in steps):
            if isinstance(event, Restarted | RoundOpened | RoundPublished):
                live.sum = None
            live.restarts += isinstance(event, Restarted)
            if isinstance(event, _SETS_DEADLINE):
                live.deadline = self._clock.now() + event.remaining_s
            log.info("recorded", run=live.run.run_id, event_kind=type(event).__name__)
        if live.run.has_ended:
            live.sum = live.sum_memory = None
            self._retire(live)
        self._ring(concerned(before, live.run))
        live.changed.ring()

    def _tell(self, *steps: Step) -> None:
        for watcher in self.watchers:
            for step in steps:
                watcher(step)

    def _retire(self, live: LiveRun) -> None:
        """Keep a run that has ended among the last ones."""
        self._runs.pop(live.run.run_id, None)
        self._ended[live.run.run_id] = live
        self._ended.move_to_end(live.run.run_id)
        while len(self._ended) > KEPT_ENDED:
            self._ended.popitem(last=False)

    def _ended_as_stored(self, run_id: RunId) -> LiveRun:
        """Read a run that has ended; one that has not is not driven here."""
        stored = self._journal.run(run_id)
        live = None if stored is None else _folded(stored)
        if live is None or not live.run.has_ended:
            raise UnknownRun(run_id)
        return live

    def _ring(self, gateways: Iterable[GatewayId]) -> None:
        for gateway in gateways:
            if gateway in self._bells:
                self._bells[gateway].ring()


def _steps(run: Run, events: Sequence[RunEvent]) -> tuple[Step, ...]:
    """Return each of `events` with the run on either side of it; raise IllegalTransition."""
    states = tuple(accumulate(events, advance_run, initial=run))
    return tuple(map(Step, states, events, states[1:]))


def _folded(stored: StoredRun) -> LiveRun:
    plan = wire.plan_from_bytes(stored.plan)
    run = begin(stored.run_id, plan, stored.plan_digest, stored.signature)
    live = LiveRun(reduce(advance_run, stored.events, run), stored.plan)
    live.recorded = len(stored.events)
    return live
