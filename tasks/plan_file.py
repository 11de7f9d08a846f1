"""What an operator writes, `plan.toml`, made into the plan of a run.

The file leaves out what is known only with the task at hand: the layout of the weights, their
initial values, the task's digest, and where it is not given the noise that meets the target. What
guards the average against bad updates is on unless the file turns it off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from common.accounting import epsilon_at_bounds, rounded_up
from common.bad_updates import Reputation, UpdateNorm
from common.calibration import noise_for
from common.config import SettingsInvalid, problems_of, read_toml
from common.errors import RequestError
from common.plan import Plan, TaskSpec
from tasks.loading import load_task
from tasks.parameters import weights_of

if TYPE_CHECKING:
    from pathlib import Path

    from common.weights import Weights
    from tasks.task import Task


NOISE = ("hyperparameters", "noise_multiplier")


class EpsilonAboveTarget(RequestError):
    """A plan would spend more than the target that it states."""

    field = "privacy.target_epsilon"

    def __init__(self, *, got: float, target: float, plan: Plan) -> None:
        noise, rate, steps = plan.loosest()
        super().__init__(
            f"at the plan's bounds (noise multiplier {noise}, sampling rate {rate}, {steps} steps "
            f"in each of {plan.rounds.count} rounds) epsilon is {rounded_up(got)} at delta "
            f"{plan.privacy.delta}, above privacy.target_epsilon = {target}: raise the noise's "
            "floor, lower the ceilings or the rounds, or state the higher target"
        )


class TaskTable(BaseModel):
    """The [task] table of a plan's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str = "tasks.ner:TASK"  # "module:attribute" or "file.py:attribute"
    labels: Annotated[tuple[str, ...], Field(min_length=1)]  # all that any site's data may carry


def read_plan(path: Path) -> tuple[Plan, Weights]:
    """Return the plan in the TOML file at `path`, and its initial weights.

    Raises:
        SettingsInvalid: the file cannot be read, or a field does not hold what it must.
        EpsilonAboveTarget: the plan could spend more than the target it states.
    """
    plan, initial = draft_plan(path)
    check_target(plan)
    return plan, initial


def draft_plan(path: Path) -> tuple[Plan, Weights]:
    """Return the same, whatever the plan spends; raise SettingsInvalid."""
    fields = dict(read_toml(path))
    try:
        table = TaskTable.model_validate(fields.pop("task", None))
        return complete(fields, load_task(table.reference), table.labels)
    except ValidationError as error:
        raise SettingsInvalid(path, problems_of(error)) from error


def complete(fields: dict[str, Any], task: Task, labels: tuple[str, ...]) -> tuple[Plan, Weights]:
    """Return the plan of `fields` with the task's part filled in, and its initial weights."""
    initial = weights_of(task.build_model(labels))
    spec = TaskSpec(name=task.name, digest=task.digest(), labels=labels, layout=initial.layout)
    given = {**_with_guards(_with_maximum(fields)), "task": spec, "initial_weights": initial.digest}
    try:
        return Plan(**given), initial
    except ValidationError as error:
        _raise_but_for_noise(error)
    return Plan(**_with_noise(given)), initial


def check_target(plan: Plan) -> None:
    """Raise EpsilonAboveTarget unless the plan at its bounds stays within its own target."""
    epsilon = epsilon_at_bounds(plan)
    if epsilon > plan.privacy.target_epsilon:
        raise EpsilonAboveTarget(got=epsilon, target=plan.privacy.target_epsilon, plan=plan)


def _with_guards(fields: dict[str, Any]) -> dict[str, Any]:
    """Bound the updates' norms and keep scores, unless the file says otherwise.

    A serialised plan that says nothing has neither: it may be one of before.
    """
    return {"update_norm": UpdateNorm(), "reputation": Reputation(), **fields}


def _with_maximum(fields: dict[str, Any]) -> dict[str, Any]:
    """Let abandoned rounds be opened as often again as rounds are to be published."""
    rounds = fields.get("rounds")
    if not isinstance(rounds, dict) or not isinstance(rounds.get("count"), int):
        return fields
    return {**fields, "rounds": {"maximum": 2 * rounds["count"], **rounds}}


def _raise_but_for_noise(error: ValidationError) -> None:
    """Raise what is wrong beside noise that is not given: the search for it may take seconds."""
    found = error.errors(include_url=False)
    others = [each for each in found if (each["type"], each["loc"]) != ("missing", NOISE)]
    if others:
        lines = [
            InitErrorDetails(
                type=PydanticCustomError(each["type"], each["msg"]),
                loc=each["loc"],
                input=each["input"],
            )
            for each in others
        ]
        raise ValidationError.from_exception_data(error.title, lines)


def _with_noise(fields: dict[str, Any]) -> dict[str, Any]:
    """Fill in the least noise that meets the target."""
    given, privacy = fields["hyperparameters"], fields["privacy"]
    try:
        noise = noise_for(
            float(privacy["target_epsilon"]),
            sampling_rate=float(given["sampling_rate"]),
            steps=int(given["local_steps"]) * int(fields["rounds"]["count"]),
            delta=float(privacy["delta"]),
        )
    except (TypeError, ValueError):
        return fields  # numbers that are written as no number of Python's: give the noise itself
    return {**fields, "hyperparameters": {**given, "noise_multiplier": noise}}
