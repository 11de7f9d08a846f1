"""Whether a gateway may say what it says, at this moment; a refusal changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import ConflictError, NotFound, PermissionRefused, RequestError
from common.hyperparameters import violations
from common.protocol import Effective
from orchestrator.norms import check_norm
from orchestrator.rounds import Phase
from orchestrator.verdicts import CopiedUpdate, UpdateWasRefused

if TYPE_CHECKING:
    from common.ids import GatewayId, PlanId, RunId
    from common.protocol import Refusal, UpdateHeader, UpdateKey, Versions
    from orchestrator.rounds import Round
    from orchestrator.runs import Run


class UnknownRun(NotFound):
    """There is no run of that name here."""

    def __init__(self, run_id: RunId) -> None:
        super().__init__(f"there is no run {run_id!r} here: check its name with `fedgate run list`")


class NotInvited(PermissionRefused):
    """The gateway does not take part in the run, or not in this round of it."""

    def __init__(self, what: str) -> None:
        super().__init__(f"this gateway was not invited to {what}")


class RunEnded(ConflictError):
    """The run is over."""

    def __init__(self, run: Run) -> None:
        super().__init__(f"run {run.run_id!r} has ended ({run.state}): nothing was changed")


class RoundNotOpen(ConflictError):
    """The round that is meant takes no updates: too late, or too early."""

    def __init__(self, key: UpdateKey, current: Round | None) -> None:
        now = "no round" if current is None else f"round {current.number} ({current.phase.value})"
        super().__init__(
            f"round {key.round} of run {key.run_id!r} takes no updates, the run is at {now}: "
            "wait for what Watch says next"
        )


class RoundFull(ConflictError):
    """The updates that close the round are here, or were and are to come again."""

    def __init__(self, key: UpdateKey, state: Round) -> None:
        super().__init__(
            f"round {key.round} of run {key.run_id!r} has the {state.target} updates that it "
            "takes: this one is not counted; wait for what Watch says next"
        )


class AlreadyAnswered(ConflictError):
    """The gateway said something else before, in this round."""

    def __init__(self, key: UpdateKey, before: str) -> None:
        super().__init__(
            f"for round {key.round} of run {key.run_id!r} this gateway already {before}"
        )


class WrongPlan(RequestError):
    """The plan that is named is not the run's."""

    field = "plan_digest"

    def __init__(self, *, got: PlanId, need: PlanId) -> None:
        super().__init__(f"names the plan {got}, the run's plan is {need}: ask GetConfig again")


class WrongParent(RequestError):
    """The update was trained from other weights than the round's."""

    field = "parent"

    def __init__(self, *, got: str, need: str) -> None:
        super().__init__(f"was trained from {got}, the round started from {need}: train it again")


class OutsideBounds(RequestError):
    """A gateway means to train with a value that the plan does not allow."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(f"{sentence}: correct the gateway's override")
        self.field = field


class TaskMissing(RequestError):
    """A gateway accepts a plan whose task it did not name at Register."""

    field = "task"

    def __init__(self, task: str, *, got: str | None, need: str) -> None:
        has = "no such task" if got is None else f"its digest {got}"
        super().__init__(f"the plan needs task {task!r} of digest {need}, this gateway has {has}")


class AnswerChanged(ConflictError):
    """A gateway accepted the plan with other values before."""

    def __init__(self, run_id: RunId) -> None:
        super().__init__(
            f"this gateway accepted the plan of run {run_id!r} with other values, which are fixed "
            "for this run: a changed override counts from the next run on"
        )


class AlreadyAccepted(ConflictError):
    """A gateway refuses a plan that it has accepted."""

    def __init__(self, run_id: RunId) -> None:
        super().__init__(
            f"this gateway accepted the plan of run {run_id!r}, and that stays: "
            "decline its rounds instead"
        )


def check_answer(
    run: Run, gateway: GatewayId, plan_digest: PlanId, answer: Effective | Refusal
) -> None:
    """Raise unless `gateway` may answer the plan of `run` with `answer`."""
    if gateway not in run.participants:
        raise NotInvited(f"run {run.run_id!r}")
    if plan_digest != run.plan_digest:
        raise WrongPlan(got=plan_digest, need=run.plan_digest)
    before = run.answers.get(gateway)
    if answer == before:
        return
    if run.has_ended:
        raise RunEnded(run)
    if isinstance(before, Effective):
        is_refusal = not isinstance(answer, Effective)
        raise AlreadyAccepted(run.run_id) if is_refusal else AnswerChanged(run.run_id)
    if isinstance(answer, Effective):
        _check_effective(run, gateway, answer)


def _check_effective(run: Run, gateway: GatewayId, answer: Effective) -> None:
    bounds, assigned = run.plan.bounds, run.plan.assigned(gateway)
    for found in violations(answer.hyperparameters, bounds=bounds, assigned=assigned):
        raise OutsideBounds(found.field, found.sentence)
    answer.hyperparameters.check_adaptive(run.plan.expected_units(gateway, answer.hyperparameters))


def check_task(run: Run, versions: Versions) -> None:
    """Raise TaskMissing unless the gateway has the task that the plan names by its digest."""
    task = run.plan.task
    got = versions.tasks.get(task.name)
    if got != task.digest:
        raise TaskMissing(task.name, got=got, need=task.digest)


def is_counted(run: Run, gateway: GatewayId, key: UpdateKey, digest: str) -> bool:
    """Return whether the update is counted, or set aside; raise unless it is, or may come now."""
    state = round_for(run, gateway, key)
    if (refused := state.refused.get(gateway)) is not None:
        raise UpdateWasRefused(key, refused.reason)
    done = state.received.get(gateway) or state.set_aside.get(gateway)
    before = done or state.awaited.get(gateway)
    if before is not None and before != digest:
        raise AlreadyAnswered(key, f"sent an update of digest {before}, not {digest}")
    if done is not None:
        return True
    if gateway in state.declined:
        raise AlreadyAnswered(key, "declined")
    if state.is_full or not (state.has_room or gateway in state.awaited):
        raise RoundFull(key, state)
    if state.phase is not Phase.COLLECTING:
        raise RoundNotOpen(key, state)
    return False


def check_header(run: Run, header: UpdateHeader) -> None:
    """Raise unless the update was made under the run's plan, from the weights of its round."""
    if header.plan_digest != run.plan_digest:
        raise WrongPlan(got=header.plan_digest, need=run.plan_digest)
    if run.round is not None and header.parent != run.round.parent:
        raise WrongParent(got=header.parent, need=run.round.parent)


def check_beside_others(state: Round, gateway: GatewayId, digest: str, norm: float | None) -> None:
    """Raise unless an update is small enough for the round, and nobody else's.

    Of two gateways that send the same bytes the first is counted: the journal says who that was.

    Raises:
        NormTooLarge, CopiedUpdate: it is not.
    """
    check_norm(norm, state.norm_bound)
    if state.holder_of(digest) not in {None, gateway}:
        raise CopiedUpdate


def has_declined(run: Run, gateway: GatewayId, key: UpdateKey) -> bool:
    """Return whether the gateway declined the round already; raise unless it did, or may now."""
    state = round_for(run, gateway, key)
    if gateway in state.declined:
        return True
    if gateway in state.received or gateway in state.set_aside or gateway in state.refused:
        raise AlreadyAnswered(key, "sent an update")
    if state.phase is not Phase.COLLECTING:
        raise RoundNotOpen(key, state)
    return False


def round_for(run: Run, gateway: GatewayId, key: UpdateKey) -> Round:
    """Return the round that `key` means; raise unless `gateway` is invited to it."""
    if gateway not in run.participants:
        raise NotInvited(f"run {run.run_id!r}")
    if run.has_ended:
        raise RunEnded(run)
    if run.round is None or run.round.number != key.round:
        raise RoundNotOpen(key, run.round)
    if gateway not in run.round.invited:
        raise NotInvited(f"round {key.round} of run {run.run_id!r}")
    return run.round
