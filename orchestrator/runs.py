"""A run is a value: the fold of its events. `next_step` says what it needs next.

GATHERING ──first round opened──▶ RUNNING ──every round published──▶ COMPLETED
    └──────────────┬─────────────────┘
                   └──▶ FAILED (reason), CANCELLED
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from common.ids import GatewayId, WeightsId
from common.plan import WhenAbandoned
from common.protocol import Effective, RunState
from orchestrator.events import (
    PlanAccepted,
    PlanRefused,
    Restarted,
    RoundEvent,
    RoundOpened,
    RoundPublished,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunFailed,
    RunStarted,
    ScoresRecorded,
)
from orchestrator.rounds import IllegalTransition, Phase, Round, advance, opened
from orchestrator.selection import select

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from common.ids import PlanId, RunId
    from common.plan import Plan
    from common.protocol import Refusal, ScoreSet


@dataclass(frozen=True)
class Run:
    """Everything that the journal says of one run."""

    run_id: RunId
    plan: Plan
    plan_digest: PlanId
    weights: WeightsId  # the last published ones, at first the plan's
    state: RunState = RunState.GATHERING
    reason: str = ""
    remaining_s: float = 0.0  # to gather; a round has its own
    answers: Mapping[GatewayId, Effective | Refusal] = field(default_factory=dict)
    round: Round | None = None
    opened: int = 0
    published: int = 0
    optimizer_state: WeightsId | None = None
    told: frozenset[GatewayId] = frozenset()  # of the current round, in any attempt
    absent: frozenset[GatewayId] = frozenset()  # before the current round
    invitations: Mapping[GatewayId, int] = field(default_factory=dict)  # distinct rounds
    memberships: Mapping[GatewayId, int] = field(default_factory=dict)  # published rounds
    scores: tuple[ScoreSet, ...] = ()
    model: WeightsId | None = None
    model_sha256: str = ""

    @property
    def accepted(self) -> frozenset[GatewayId]:
        """Those that accepted the plan."""
        return frozenset(g for g, answer in self.answers.items() if isinstance(answer, Effective))

    @property
    def has_ended(self) -> bool:
        """Whether no round will be opened any more."""
        return self.state not in {RunState.GATHERING, RunState.RUNNING}

    @property
    def participants(self) -> frozenset[GatewayId]:
        """Those that the plan invites."""
        return frozenset(GatewayId(p.gateway) for p in self.plan.participants)

    @property
    def left_s(self) -> float:
        """Seconds to the deadline of what is going on, as last recorded."""
        return self.remaining_s if self.round is None else self.round.remaining_s


def begin(run_id: RunId, plan: Plan, plan_digest: PlanId) -> Run:
    """Return the run before its first event."""
    return Run(run_id, plan, plan_digest, weights=WeightsId(plan.initial_weights))


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
        case RunStarted() | Restarted() if run.round is None:
            return replace(run, remaining_s=event.remaining_s)
        case PlanAccepted() | PlanRefused():
            return _answered(run, event)
        case RunCompleted() | RunFailed() | RunCancelled():
            return _ended(run, event)
        case RunStarted():
            raise IllegalTransition(f"a run that is {run.state}", event)
        case _:
            return _advance_round(run, event)


def _after_the_end(run: Run, event: RunEvent) -> Run:
    is_repeated = isinstance(event, RunCancelled) and run.state is RunState.CANCELLED
    if is_repeated or isinstance(event, Restarted):
        return run
    raise IllegalTransition(f"a run that is {run.state}", event)


def _with_scores(scores: tuple[ScoreSet, ...], new: ScoreSet) -> tuple[ScoreSet, ...]:
    """Return `scores` with `new` in the place of an older one of the same round and split."""
    others = [old for old in scores if (old.round, old.split) != (new.round, new.split)]
    return tuple(sorted([*others, new], key=lambda each: (each.round, each.split)))


def _answered(run: Run, event: PlanAccepted | PlanRefused) -> Run:
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
    )


def _counted(
    counts: Mapping[GatewayId, int], once_more: Iterable[GatewayId]
) -> dict[GatewayId, int]:
    return {**counts, **{gateway: counts.get(gateway, 0) + 1 for gateway in once_more}}


def absent(run: Run) -> frozenset[GatewayId]:
    """Return those that were silent in the last round that they were invited to."""
    if run.round is None:
        return run.absent
    return (run.absent - run.round.invited) | run.round.silent


@dataclass(frozen=True)
class Await:
    """Nothing to do before the next event or the deadline."""


@dataclass(frozen=True)
class PassDeadline:
    """Close the round with what has come."""

    lost: tuple[GatewayId, ...]  # received before a restart, not since


@dataclass(frozen=True)
class Publish:
    """Turn the sum into the next weights."""


@dataclass(frozen=True)
class Complete:
    """Name the run's model."""


@dataclass(frozen=True)
class Rest:
    """The run has ended."""


Step: TypeAlias = Await | RoundOpened | PassDeadline | Publish | Complete | RunFailed
Decision: TypeAlias = Step | Rest


def next_step(run: Run, *, connected: frozenset[GatewayId], is_overdue: bool) -> Decision:
    """Return what the run needs next.

    Args:
        run: where it stands.
        connected: the gateways that are here now.
        is_overdue: whether the deadline of what is going on has passed.
    """
    if run.has_ended:
        return Rest()
    if run.round is None:
        return _while_gathering(run, connected, is_overdue=is_overdue)
    phase = run.round.phase
    if phase is Phase.COLLECTING:
        return PassDeadline(tuple(sorted(run.round.awaited))) if is_overdue else Await()
    if phase is Phase.AGGREGATING:
        return Publish()
    if phase is Phase.CLOSED and run.published == run.plan.rounds.count:
        return Complete()
    return _after(run, run.round, connected)


def _while_gathering(run: Run, connected: frozenset[GatewayId], *, is_overdue: bool) -> Decision:
    quorum, accepted = run.plan.rounds.quorum, len(run.accepted)
    refused = len(run.answers) - accepted
    if len(run.participants) - refused < quorum:
        return RunFailed(
            f"{refused} of {len(run.participants)} gateways refused the plan, "
            f"rounds.quorum needs {quorum} to accept it"
        )
    if accepted >= quorum and (is_overdue or len(run.answers) == len(run.participants)):
        return _round(run, 1, 1, connected)
    return Await()


def _after(run: Run, last: Round, connected: frozenset[GatewayId]) -> Decision:
    rounds, is_abandoned = run.plan.rounds, last.phase is Phase.ABANDONED
    if is_abandoned and rounds.when_abandoned is WhenAbandoned.END:
        return RunFailed(f"round {last.number} was abandoned: {last.reason}")
    if run.opened >= rounds.maximum:
        why = f"; the last was abandoned: {last.reason}" if is_abandoned else ""
        return RunFailed(f"rounds.maximum = {rounds.maximum} rounds were opened{why}")
    if is_abandoned:
        return _round(run, last.number, last.attempt + 1, connected)
    return _round(run, last.number + 1, 1, connected)


def _round(run: Run, number: int, attempt: int, connected: frozenset[GatewayId]) -> RoundOpened:
    rounds = run.plan.rounds
    invited = select(run.accepted, absent=absent(run), connected=connected, quorum=rounds.quorum)
    return RoundOpened(number, attempt, run.weights, invited, rounds.quorum, rounds.deadline_s)
