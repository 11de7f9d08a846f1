"""A run is a value: the fold of its events. `steps.next_step` says what it needs next.

GATHERING ──first round opened──▶ RUNNING ──every round published──▶ COMPLETED
    └──────────────┬─────────────────┘
                   └──▶ FAILED (reason), CANCELLED

Before a round opens there may be a hold: RETRY, a pause after one that was abandoned, and SITES,
until enough gateways are there. Both have a time that a restart goes on with.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from common.ids import GatewayId, WeightsId
from common.protocol import Effective, RunState
from orchestrator.events import (
    GatewayReleased,
    PlanAccepted,
    PlanRefused,
    Restarted,
    RetryPostponed,
    RoundEvent,
    RoundOpened,
    RoundPublished,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunFailed,
    RunStarted,
    ScoresRecorded,
    SitesAwaited,
)
from orchestrator.norms import remembered
from orchestrator.reputation import Records, after_round, released
from orchestrator.rounds import IllegalTransition, Phase, Round, advance, opened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from common.ids import PlanId, RunId
    from common.plan import Plan
    from common.protocol import Refusal, ScoreSet
    from common.signatures import PlanSignature
    from orchestrator.norms import Norms


class Hold(Enum):
    """Why no round is open, although one is to come."""

    RETRY = "retry"
    SITES = "sites"


@dataclass(frozen=True)
class Run:
    """Everything that the journal says of one run."""

    run_id: RunId
    plan: Plan
    plan_digest: PlanId
    weights: WeightsId  # the last published ones, at first the plan's
    plan_signature: PlanSignature | None = None  # of the operator who ordered it
    state: RunState = RunState.GATHERING
    reason: str = ""
    remaining_s: float = 0.0  # to gather, or of the hold; a round has its own
    hold: Hold | None = None
    answers: Mapping[GatewayId, Effective | Refusal] = field(default_factory=dict)
    round: Round | None = None
    opened: int = 0
    published: int = 0
    optimizer_state: WeightsId | None = None
    told: frozenset[GatewayId] = frozenset()  # of the current round, in any attempt
    absent: frozenset[GatewayId] = frozenset()  # before the current round
    invitations: Mapping[GatewayId, int] = field(default_factory=dict)  # distinct rounds
    memberships: Mapping[GatewayId, int] = field(default_factory=dict)  # published rounds
    norms: Norms = field(default_factory=dict)  # of updates in published rounds
    records: Records = field(default_factory=Records)
    scores: tuple[ScoreSet, ...] = ()
    model: WeightsId | None = None
    model_sha256: str = ""

    @cached_property
    def accepted(self) -> frozenset[GatewayId]:
        """Those that accepted the plan."""
        return frozenset(g for g, answer in self.answers.items() if isinstance(answer, Effective))

    @property
    def has_ended(self) -> bool:
        """Whether no round will be opened any more."""
        return self.state.has_ended

    @property
    def participants(self) -> frozenset[GatewayId]:
        """Those that the plan invites."""
        return self.plan.gateways

    @property
    def left_s(self) -> float:
        """Seconds to the deadline of what is going on, as last recorded."""
        if self.round is None or self.hold is not None:
            return self.remaining_s
        return self.round.remaining_s


def begin(
    run_id: RunId, plan: Plan, plan_digest: PlanId, signature: PlanSignature | None = None
) -> Run:
    """Return the run before its first event, as `signature`'s owner has ordered it."""
    return Run(run_id, plan, plan_digest, WeightsId(plan.initial_weights), signature)


def advance_run(run: Run, event: RunEvent) -> Run:
    """Return the run after `event`; the same one for a repeated event.

    Raises:
        IllegalTransition: no rule fits.
    """
    match event:
        case ScoresRecorded():
            return replace(run, scores=_with_scores(run.scores, event.scores))
        case _ if run.has_ended:
            return _after_the_end(run, event)
        case RunStarted() | RetryPostponed() | SitesAwaited():
            return _held(run, event)
        case PlanAccepted() | PlanRefused() | GatewayReleased():
            return _of_gateway(run, event)
        case RunCompleted() | RunFailed() | RunCancelled():
            return _ended(run, event)
        case _:
            return _advance_round(run, event)


def _held(run: Run, event: RunStarted | RetryPostponed | SitesAwaited) -> Run:
    last = None if run.round is None else run.round.phase
    match event:
        case RunStarted() if last is None:
            return replace(run, remaining_s=event.remaining_s)
        case RetryPostponed() if last is Phase.ABANDONED and run.hold is not Hold.SITES:
            return replace(run, hold=Hold.RETRY, remaining_s=event.remaining_s)
        case SitesAwaited() if last in {None, Phase.ABANDONED, Phase.CLOSED}:
            return replace(run, hold=Hold.SITES, remaining_s=event.remaining_s)
    raise IllegalTransition(f"a run that is {run.state}", event)


def _after_the_end(run: Run, event: RunEvent) -> Run:
    is_repeated = isinstance(event, RunCancelled) and run.state is RunState.CANCELLED
    if is_repeated or isinstance(event, Restarted):
        return run
    raise IllegalTransition(f"a run that is {run.state}", event)


def _with_scores(scores: tuple[ScoreSet, ...], new: ScoreSet) -> tuple[ScoreSet, ...]:
    """Return `scores` with `new` in the place of an older one of the same round and split."""
    others = [old for old in scores if (old.round, old.split) != (new.round, new.split)]
    return tuple(sorted([*others, new], key=lambda each: (each.round, each.split)))


def _of_gateway(run: Run, event: PlanAccepted | PlanRefused | GatewayReleased) -> Run:
    if isinstance(event, GatewayReleased):
        return replace(run, records=released(run.records, event.gateway))
    answer = event.effective if isinstance(event, PlanAccepted) else event.refusal
    before = run.answers.get(event.gateway)
    if answer == before:
        return run
    has_accepted = isinstance(before, Effective)  # which stays; a round can be declined
    if has_accepted or event.gateway not in run.participants:
        raise IllegalTransition(f"a run that is {run.state}", event)
    answers = {**run.answers, event.gateway: answer}
    return replace(run, answers=answers, remaining_s=event.remaining_s)


def _ended(run: Run, event: RunCompleted | RunFailed | RunCancelled) -> Run:
    match event:
        case RunFailed():
            return replace(run, state=RunState.FAILED, reason=event.reason)
        case RunCancelled():
            return replace(run, state=RunState.CANCELLED)
        case RunCompleted() if run.published == run.plan.rounds.count:
            model, sha256 = event.model, event.model_sha256
            return replace(run, state=RunState.COMPLETED, model=model, model_sha256=sha256)
    raise IllegalTransition(f"a run with {run.published} rounds published", event)


def _advance_round(run: Run, event: RoundEvent) -> Run:
    if isinstance(event, Restarted) and (run.round is None or run.hold is not None):
        return replace(run, remaining_s=event.remaining_s)
    if run.round is None:
        if isinstance(event, RoundOpened):
            return _in_round(run, opened(event), event)
        raise IllegalTransition("a run that has opened no round", event)
    state = advance(run.round, event)
    if isinstance(event, RoundOpened):
        return _in_round(run, state, event)
    if isinstance(event, RoundPublished):
        return _published(run, state, event)
    return replace(run, round=state)


def _in_round(run: Run, state: Round, event: RoundOpened) -> Run:
    told_before = run.told if event.attempt > 1 else frozenset[GatewayId]()
    return replace(
        run,
        state=RunState.RUNNING,
        hold=None,
        round=state,
        opened=run.opened + 1,
        absent=absent(run),
        told=told_before | state.invited,
        invitations=_counted(run.invitations, state.invited - told_before),
    )


def _published(run: Run, state: Round, event: RoundPublished) -> Run:
    return replace(
        run,
        round=state,
        published=state.number,
        weights=event.weights,
        optimizer_state=event.optimizer_state,
        memberships=_counted(run.memberships, event.members),
        norms=_norms(run, state),
        records=after_round(run.records, state, run.plan.reputation),
    )


def _norms(run: Run, state: Round) -> Norms:
    if run.plan.update_norm.is_off:
        return run.norms
    known = {name: state.norms[name] for name in state.received if name in state.norms}
    return remembered(run.norms, known, state.norm_bound)


def _counted(
    counts: Mapping[GatewayId, int], once_more: Iterable[GatewayId]
) -> dict[GatewayId, int]:
    return {**counts, **{gateway: counts.get(gateway, 0) + 1 for gateway in once_more}}


def absent(run: Run) -> frozenset[GatewayId]:
    """Return those that were silent in the last round that they were invited to."""
    if run.round is None:
        return run.absent
    return (run.absent - run.round.invited) | run.round.silent


def concerned(before: Run, after: Run) -> frozenset[GatewayId]:
    """Return the gateways for whom something changed: one, unless the run or its round moved on."""
    old, new = before.round, after.round
    if before.state is not after.state or (old is None) is not (new is None):
        return after.participants
    changed: frozenset[GatewayId] = frozenset()
    if old is not None and new is not None and old is not new:
        if old.phase is not new.phase or old.has_room != new.has_room:
            return after.participants
        changed = new.answered ^ old.answered
    if after.answers is not before.answers:
        answers = after.answers.items()
        changed |= {gateway for gateway, each in answers if before.answers.get(gateway) is not each}
    return changed
