"""The plan of a run: everything that is agreed before any data are read.

A `Plan` is a value. Its serialised form (`common.wire`) has a digest that names it, and that
digest is bound into every key and every update of the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from operator import not_
from typing import Annotated, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator

from common.bad_updates import PLAIN, Reputation, UpdateNorm, is_plain
from common.errors import RequestError
from common.hyperparameters import FROZEN, Bounds, Hyperparameters, Overrides, violations
from common.ids import DIGEST_PATTERN, NAME_PATTERN, GatewayId
from common.update_form import UpdateForm
from common.weights import Layout
from common.wire_formats import WireFormat

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]

_MOST_DOUBLINGS = 64  # of a pause: beyond any that is allowed, within what a float holds


class Unit(StrEnum):
    """What is protected as a whole: sampled as one, clipped as one, added or removed as one."""

    EXAMPLE = "example"  # one record, for text one sentence
    DOCUMENT = "document"  # all records of one document
    PERSON = "person"  # all records that one person alone owns


class Relation(StrEnum):
    """Which data sets count as neighbours."""

    ADD_OR_REMOVE_ONE = "add_or_remove_one"


class Weighting(StrEnum):
    """How the average weighs the gateways; both are constants of the plan."""

    DECLARED_UNITS = "declared_units"
    EQUAL = "equal"


class Schedule(StrEnum):
    """How the server's learning rate goes over the published rounds."""

    CONSTANT = "constant"
    LINEAR = "linear"


class WhenAbandoned(StrEnum):
    """What the run does with a round that ended without its quorum."""

    RETRY = "retry"  # reopen it on the same parent: gateways send the same bytes again
    END = "end"


class Participant(BaseModel):
    """A gateway that is invited, and the size that it declared in public."""

    model_config = FROZEN

    gateway: Name  # as in its certificate
    declared_units: Annotated[int, Field(gt=0)]  # of the plan's unit; public, never a live count


class Privacy(BaseModel):
    """What is promised, for whom, against which change of the data."""

    model_config = FROZEN

    unit: Unit = Unit.EXAMPLE  # what is protected as a whole
    relation: Relation = Relation.ADD_OR_REMOVE_ONE  # which data sets are neighbours
    delta: Annotated[float, Field(gt=0, lt=1)]  # that every epsilon of the run is stated at
    target_epsilon: Annotated[float, Field(gt=0)]  # at the bounds: no override passes it


class ServerOptimizer(BaseModel):
    """What turns the averaged difference into the next model (FedAvgM, Hsu et al. 2019)."""

    model_config = FROZEN

    learning_rate: Annotated[float, Field(gt=0)] = 1.0  # of the server, times the average
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of the server, over published rounds
    schedule: Schedule = Schedule.CONSTANT  # of the server's rate, over published rounds
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0  # linear: last rate over the first
    tail_average: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of rounds averaged at the end


class Rounds(BaseModel):
    """How many rounds, who joins each, how long it waits, and what happens when one fails.

    Source:
        Bonawitz et al. 2019, "Towards Federated Learning at Scale: System Design": a goal count,
        more devices selected than that, a least count, and a time limit for each.
    """

    model_config = FROZEN

    count: Annotated[int, Field(gt=0, le=100_000)]  # rounds to publish
    maximum: Annotated[int, Field(gt=0, le=200_000)]  # rounds to open, abandoned ones included
    quorum: Annotated[int, Field(gt=0)]  # updates without which no round is published
    deadline_s: Annotated[float, Field(gt=0, le=604_800)]  # from opening, on a monotonic clock
    when_abandoned: WhenAbandoned = WhenAbandoned.RETRY  # what follows a round without quorum
    target: Annotated[int, Field(gt=0)] | None = None  # updates that close a round; None: all
    over_selection: Annotated[int, Field(ge=0)] = 0  # gateways invited beyond the target
    minimum_sites: Annotated[int, Field(ge=0)] = 0  # that must be connected for a round to open
    wait_for_sites_s: Annotated[float, Field(gt=0, le=31_536_000)] = 86_400.0  # then the run fails
    retry_pause_s: Annotated[float, Field(ge=0, le=604_800)] = 1.0  # doubles with each retry

    @property
    def invited(self) -> int | None:
        """How many gateways a round invites at most; None: all that accepted the plan."""
        return None if self.target is None else self.target + self.over_selection

    @property
    def sites_needed(self) -> int:
        """How many gateways must accept the plan for any round to come."""
        return max(self.quorum, self.minimum_sites)

    def retry_pause(self, attempt: int) -> float:
        """Return the seconds between an abandoned round's end and its opening as `attempt` + 1.

        They double with each attempt, up to the time that a round itself may take.
        """
        doublings = min(attempt - 1, _MOST_DOUBLINGS)
        return min(self.retry_pause_s * 2.0**doublings, self.deadline_s)

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        if self.maximum < self.count:
            yield f"rounds.maximum is {self.maximum}, must be at least rounds.count = {self.count}"
        if self.target is None and self.over_selection:
            yield (
                f"rounds.over_selection is {self.over_selection}, but there is no rounds.target "
                "beyond which to invite: without one every gateway is invited"
            )
        if self.target is not None and self.quorum > self.target:
            yield (
                f"rounds.quorum is {self.quorum}, but a round closes with rounds.target = "
                f"{self.target} updates: no round could have its quorum"
            )


def _is_float32(wire_format: WireFormat) -> bool:
    return wire_format is WireFormat.FLOAT32


class TaskSpec(BaseModel):
    """The task that every gateway must have installed; its code never travels."""

    model_config = FROZEN

    name: Annotated[str, Field(min_length=1, max_length=100)]
    digest: Digest  # of the task's source, as `Task.digest()` gives it
    labels: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    layout: Layout  # of the trainable parameters


class Plan(BaseModel):
    """Everything agreed before a run starts."""

    model_config = FROZEN

    name: Name  # for people
    task: TaskSpec
    initial_weights: Digest
    participants: Annotated[tuple[Participant, ...], Field(min_length=1, max_length=10_000)]
    weighting: Weighting = Weighting.DECLARED_UNITS  # what a gateway counts in the average
    rounds: Rounds
    privacy: Privacy
    hyperparameters: Hyperparameters  # the federation's defaults
    profiles: dict[Name, Overrides] = {}  # by gateway, laid over the defaults
    bounds: Bounds = Bounds()
    server: ServerOptimizer = ServerOptimizer()
    # left out where it is the default, so that plans of before keep their bytes and their names
    wire_format: Annotated[WireFormat, Field(exclude_if=_is_float32)] = WireFormat.FLOAT32
    """How an update's values are written: four, two or about one byte each."""
    keep_updates: Annotated[bool, Field(exclude_if=not_)] = False  # on the orchestrator's disk
    update_norm: Annotated[UpdateNorm, Field(exclude_if=is_plain)] = PLAIN
    reputation: Annotated[Reputation | None, Field(exclude_if=not_)] = None  # None: none is kept

    @cached_property
    def update_form(self) -> UpdateForm:
        """What the bytes of every update are."""
        return UpdateForm(self.task.layout, self.wire_format)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        gateways = [participant.gateway for participant in self.participants]
        if len(set(gateways)) < len(gateways):
            msg = f"participants names a gateway twice: {sorted(gateways)}"
            raise ValueError(msg)
        for name, needed in _gateways_needed(self.rounds):
            if needed > len(gateways):
                msg = f"{name} is {needed}, but only {len(gateways)} take part"
                raise ValueError(msg)
        if strangers := set(self.profiles) - set(gateways):
            msg = f"profiles names gateways that do not take part: {sorted(strangers)}"
            raise ValueError(msg)
        checked: set[Hyperparameters] = set()
        for gateway in gateways:
            given = self.assigned(gateway)
            if given not in checked:
                _check_inside(gateway, given, self.bounds)
                checked.add(given)
            if given.adaptive_clipping is not None:
                _check_adaptive(gateway, given, self.expected_units(gateway, given))
        return self

    @cached_property
    def by_gateway(self) -> Mapping[str, Participant]:
        """The participants by name; a copy with other participants has to be validated anew."""
        return {participant.gateway: participant for participant in self.participants}

    @cached_property
    def gateways(self) -> frozenset[GatewayId]:
        """The names of the participants."""
        return frozenset(map(GatewayId, self.by_gateway))

    def participant(self, gateway: str) -> Participant | None:
        """Return the participant of that name, or None if it was not invited."""
        return self.by_gateway.get(gateway)

    def assigned(self, gateway: str) -> Hyperparameters:
        """Return what the federation gives `gateway`: the defaults, overlaid by its profile."""
        profile = self.profiles.get(gateway)
        return self.hyperparameters if profile is None else profile.over(self.hyperparameters)

    def expected_units(self, gateway: str, given: Hyperparameters | None = None) -> float:
        """Return how many units a batch of `gateway` has on average: public, whatever its data.

        Args:
            gateway: a participant; of any other the plan expects nothing.
            given: what it trains with; None: what the plan gives it.
        """
        participant, how = self.participant(gateway), given or self.assigned(gateway)
        return participant.declared_units * how.sampling_rate if participant else 0.0

    def weight(self, gateway: str) -> int:
        """Return the gateway's public integer weight in the average."""
        participant = self.participant(gateway)
        if participant is None or self.weighting is Weighting.EQUAL:
            return 0 if participant is None else 1
        return two_digits(participant.declared_units)

    def loosest(self) -> tuple[float, float, int]:
        """Return (noise multiplier, sampling rate, steps a round) at the plan's bounds.

        No gateway can spend more privacy than these values cost: the floor under the noise, the
        ceilings over rate and steps, or where a field may not be overridden its largest value.
        """
        given = [self.assigned(p.gateway) for p in self.participants]
        noise, rate = self.bounds.noise_multiplier, self.bounds.sampling_rate
        steps = self.bounds.local_steps
        return (
            min(g.noise_multiplier for g in given) if noise is None else noise.least(0.0),
            max(g.sampling_rate for g in given) if rate is None else rate.most(1.0),
            max(g.local_steps for g in given) if steps is None else int(steps.most(1e9)),
        )


def two_digits(units: int) -> int:
    """Round to two significant digits, so that a weight says no more than a size's order."""
    step: int = 10 ** max(0, len(str(units)) - 2)
    return max(1, (units + step // 2) // step * step)


def _gateways_needed(rounds: Rounds) -> Iterator[tuple[str, int]]:
    yield "rounds.quorum", rounds.quorum
    yield "rounds.minimum_sites", rounds.minimum_sites
    yield "rounds.target + rounds.over_selection", rounds.invited or 0


def _check_inside(gateway: str, given: Hyperparameters, bounds: Bounds) -> None:
    for found in violations(given, bounds=bounds, assigned=given):
        msg = f"what the plan itself gives {gateway!r} is outside its bounds: {found.sentence}"
        raise ValueError(msg)


def _check_adaptive(gateway: str, given: Hyperparameters, expected_count: float) -> None:
    try:
        given.check_adaptive(expected_count)
    except RequestError as error:
        msg = f"hyperparameters.{error.field}, for {gateway!r}: {error}"
        raise ValueError(msg) from error
