"""What a run needs next: a function of the run, of who is here, and of whether time is up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from common.plan import WhenAbandoned
from orchestrator.events import RetryPostponed, RoundOpened, RunFailed, SitesAwaited
from orchestrator.norms import norm_bound
from orchestrator.rounds import Phase
from orchestrator.runs import Hold, absent
from orchestrator.selection import Draw, present, select

if TYPE_CHECKING:
    from common.ids import GatewayId
    from orchestrator.rounds import Round
    from orchestrator.runs import Run
    from orchestrator.selection import Presence


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


Step: TypeAlias = (
    Await
    | RetryPostponed
    | SitesAwaited
    | RoundOpened
    | PassDeadline
    | Publish
    | Complete
    | RunFailed
)
Decision: TypeAlias = Step | Rest


def next_step(run: Run, presence: Presence, *, is_overdue: bool) -> Decision:
    """Return what the run needs next.

    Args:
        run: where it stands.
        presence: the gateways that are here now.
        is_overdue: whether the deadline of what is going on has passed.
    """
    if run.has_ended:
        return Rest()
    if run.round is None:
        return _while_gathering(run, presence, is_overdue=is_overdue)
    phase = run.round.phase
    if phase is Phase.COLLECTING:
        return PassDeadline(tuple(sorted(run.round.awaited))) if is_overdue else Await()
    if phase is Phase.AGGREGATING:
        return Publish()
    if phase is Phase.CLOSED and run.published == run.plan.rounds.count:
        return Complete()
    return _after(run, run.round, presence, is_overdue=is_overdue)


def _while_gathering(run: Run, presence: Presence, *, is_overdue: bool) -> Decision:
    rounds, accepted = run.plan.rounds, len(run.accepted)
    refused = len(run.answers) - accepted
    if len(run.participants) - refused < rounds.sites_needed:
        is_quorum = rounds.quorum >= rounds.minimum_sites
        return RunFailed(
            f"{refused} of {len(run.participants)} gateways refused the plan, "
            f"rounds.{'quorum' if is_quorum else 'minimum_sites'} needs {rounds.sites_needed} "
            "to accept it"
        )
    has_gathered = is_overdue or run.hold is not None or len(run.answers) == len(run.participants)
    if not has_gathered:
        return Await()
    return _open(run, 1, 1, presence, is_overdue=is_overdue)


def _after(run: Run, last: Round, presence: Presence, *, is_overdue: bool) -> Decision:
    rounds, is_abandoned = run.plan.rounds, last.phase is Phase.ABANDONED
    if is_abandoned and rounds.when_abandoned is WhenAbandoned.END:
        return RunFailed(f"round {last.number} was abandoned: {last.reason}")
    if run.opened >= rounds.maximum:
        why = f"; the last was abandoned: {last.reason}" if is_abandoned else ""
        return RunFailed(f"rounds.maximum = {rounds.maximum} rounds were opened{why}")
    if not is_abandoned:
        return _open(run, last.number + 1, 1, presence, is_overdue=is_overdue)
    pause = rounds.retry_pause(last.attempt)
    if run.hold is None and pause:
        return RetryPostponed(pause)
    if run.hold is Hold.RETRY and not is_overdue:
        return Await()
    return _open(run, last.number, last.attempt + 1, presence, is_overdue=is_overdue)


def _open(
    run: Run, number: int, attempt: int, presence: Presence, *, is_overdue: bool
) -> RoundOpened | SitesAwaited | RunFailed | Await:
    """Return the round that opens, or what is done while too few gateways are there for it."""
    missing, waits_s = _missing(run, presence.connected), run.plan.rounds.wait_for_sites_s
    if not missing:
        return _round(run, number, attempt, presence)
    if run.hold is not Hold.SITES:
        return SitesAwaited(waits_s)
    if is_overdue:
        return RunFailed(f"{missing} within rounds.wait_for_sites_s = {waits_s:g} seconds")
    return Await()


def why_on_hold(run: Run, connected: frozenset[GatewayId]) -> str:
    """Return why no round is open although one is to come; nothing if that is not so."""
    match run.hold:
        case Hold.SITES if not run.has_ended:
            return _missing(run, connected)
        case Hold.RETRY if run.round is not None and not run.has_ended:
            return f"round {run.round.number} will be opened again: {run.round.reason}"
    return ""


def _missing(run: Run, connected: frozenset[GatewayId]) -> str:
    """Return what keeps a round from opening; nothing if enough gateways are there."""
    rounds, accepted = run.plan.rounds, run.accepted
    need = f"rounds.quorum = {rounds.quorum}"
    if len(accepted) < rounds.quorum:
        return f"{len(accepted)} of the {need} gateways needed accepted the plan"
    if len(accepted - (aside := run.records.quarantined)) < rounds.quorum:
        names = ", ".join(sorted(accepted & aside))
        return (
            f"{len(accepted - aside)} of the {need} gateways needed are not in quarantine "
            f"(there are: {names}; `fedgate run release` takes one out)"
        )
    here = len(accepted & connected)
    if here < rounds.minimum_sites:
        need = f"rounds.minimum_sites = {rounds.minimum_sites}"
        return f"{here} of the {need} gateways needed were connected"
    return ""


def _round(run: Run, number: int, attempt: int, presence: Presence) -> RoundOpened:
    rounds, aside = run.plan.rounds, run.records.quarantined
    drawn = partial(_drawn, run, number, attempt, presence)
    invited = drawn(run.accepted - aside)
    also = tuple(g for g in drawn(run.accepted) if g in aside) if aside else ()
    return RoundOpened(
        number=number,
        attempt=attempt,
        parent=run.weights,
        invited=tuple(sorted({*invited, *also})),
        quorum=rounds.quorum,
        remaining_s=rounds.deadline_s,
        target=rounds.target,
        norm_bound=norm_bound(run.plan.update_norm, run.norms),
        quarantined=also,
    )


def _drawn(
    run: Run, number: int, attempt: int, presence: Presence, among: frozenset[GatewayId]
) -> tuple[GatewayId, ...]:
    """Return the gateways that a round invites if only those of `among` can be.

    Who is in quarantine takes no other gateway's place, and is asked as often as it would be.
    """
    rounds = run.plan.rounds
    return select(
        present(among, presence, absent=absent(run), quorum=rounds.quorum),
        presence,
        invited=rounds.invited,
        told=run.told if attempt > 1 else frozenset(),
        draw=Draw(run.plan_digest, run.run_id, number),
    )
