"""What of a run's events goes on record: a function of the run before and after each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.audit import ORCHESTRATOR, Action, Entry, Outcome
from common.version import SOFTWARE_VERSION
from orchestrator.events import (
    GatewayReleased,
    PlanAccepted,
    PlanRefused,
    RoundOpened,
    RoundPublished,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunFailed,
    RunStarted,
    ScoresRecorded,
    UpdateSetAside,
)
from orchestrator.rounds import Phase

if TYPE_CHECKING:
    from common.audit import Facts
    from common.ids import GatewayId
    from orchestrator.runs import Run


@dataclass(frozen=True)
class Step:
    """One event of a run, and the run on either side of it."""

    before: Run
    event: RunEvent
    after: Run


def gateway_uri(federation: str, gateway: GatewayId) -> str:
    """Return how the record names a gateway: as its certificate does."""
    return f"fed://{federation}/gateway/{gateway}"


def process_started(epoch: int) -> Entry:
    """Return what a process puts on record that takes over as writer `epoch`."""
    facts: Facts = {"writer": epoch, "software": SOFTWARE_VERSION}
    return Entry(ORCHESTRATOR, Action.START_PROCESS, facts)


def entry_of(step: Step, federation: str, actor: str) -> Entry | None:
    """Return what goes on record of one step, or None; `actor` is whoever asked for it."""
    before, after = step.before, step.after
    match step.event:
        case RunStarted() | RunCancelled() | ScoresRecorded() | GatewayReleased():
            return _asked_for(step.event, after, actor)
        case UpdateSetAside():
            return _set_aside(step.event, after, federation)
        case PlanAccepted() | PlanRefused() if before.answers is not after.answers:
            return _answer(step.event, after, federation)
        case RoundOpened() | RoundPublished() | RunCompleted() | RunFailed():
            return _of_its_own(step.event, after, actor)
        case _ if _is_abandoned(after) and not _is_abandoned(before):
            return Entry(actor, Action.ABANDON_ROUND, _abandoned(after))
        case _:
            return None


def _asked_for(
    event: RunStarted | RunCancelled | ScoresRecorded | GatewayReleased, run: Run, actor: str
) -> Entry:
    """Return what goes on record of what a person asks for, or the evaluator."""
    facts: Facts = {"run": run.run_id}
    match event:
        case RunStarted():
            facts = {**facts, "plan": run.plan_digest, "weights": run.weights}
            return Entry(actor, Action.START_RUN, facts)
        case RunCancelled():
            return Entry(actor, Action.CANCEL_RUN, facts)
        case GatewayReleased(gateway):
            return Entry(actor, Action.RELEASE_GATEWAY, {**facts, "gateway": gateway})
        case ScoresRecorded(scores):
            facts = {**facts, "round": scores.round, "split": scores.split}
            return Entry(actor, Action.RECORD_SCORES, {**facts, "weights": scores.weights})


def _answer(event: PlanAccepted | PlanRefused, run: Run, federation: str) -> Entry:
    who = gateway_uri(federation, event.gateway)
    facts: Facts = {"run": run.run_id, "plan": run.plan_digest}
    if isinstance(event, PlanAccepted):
        return Entry(who, Action.ANSWER_PLAN, facts)
    why = {"reason": str(event.refusal.reason), "field": event.refusal.field}
    return Entry(who, Action.ANSWER_PLAN, {**facts, **why}, Outcome.REFUSED)


def _set_aside(event: UpdateSetAside, run: Run, federation: str) -> Entry:
    who, facts = gateway_uri(federation, event.gateway), {"run": run.run_id}
    number = 0 if run.round is None else run.round.number
    return Entry(
        who,
        Action.SUBMIT_UPDATE,
        {**facts, "round": number, "update": event.digest},
        Outcome.SET_ASIDE,
    )


def _of_its_own(
    event: RoundOpened | RoundPublished | RunCompleted | RunFailed, run: Run, actor: str
) -> Entry:
    """Return what goes on record of what the orchestrator does, and nobody asks for."""
    facts: Facts = {"run": run.run_id}
    match event:
        case RoundOpened():
            facts = {**facts, "round": event.number, "attempt": event.attempt}
            facts = {**facts, "parent": event.parent, "invited": len(event.invited)}
            return Entry(actor, Action.OPEN_ROUND, facts)
        case RoundPublished():
            facts = {**facts, "round": run.published, "weights": event.weights}
            return Entry(actor, Action.PUBLISH_ROUND, {**facts, "updates": len(event.members)})
        case RunCompleted():
            facts = {**facts, "model": event.model, "sha256": event.model_sha256}
            return Entry(actor, Action.END_RUN, facts)
        case RunFailed():
            return Entry(actor, Action.END_RUN, {**facts, "reason": event.reason}, Outcome.FAILED)


def _is_abandoned(run: Run) -> bool:
    return run.round is not None and run.round.phase is Phase.ABANDONED


def _abandoned(run: Run) -> Facts:
    if run.round is None:
        return {"run": run.run_id}
    facts: Facts = {"run": run.run_id, "round": run.round.number, "attempt": run.round.attempt}
    return {**facts, "reason": run.round.reason}
