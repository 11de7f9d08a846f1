"""Hyperparameters: the federation's defaults, profiles and overrides laid over them, bounds.

One rule, in one place: the effective value is the gateway's override if it gave one, else its
profile's value, else the federation's default; then the plan's bounds and the gateway's own policy
each say yes or no. Nothing is ever silently pulled inside a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.adaptive_clipping import AdaptiveClipping, sum_noise_multiplier

FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1)]
Steps = Annotated[int, Field(gt=0, le=1_000_000)]


class Optimizer(StrEnum):
    """What a gateway steps with after the noise."""

    SGD = "sgd"
    ADAMW = "adamw"


class Hyperparameters(BaseModel):
    """A complete set: what one gateway trains one round with."""

    model_config = FROZEN

    learning_rate: Positive  # large, where clipped gradients are small
    clipping_norm: Positive  # C, L2, in gradient units; the first one where it adapts
    noise_multiplier: Positive  # sigma, of all that a step releases: what the ledger books
    sampling_rate: Rate  # q: probability that an example is in a step's batch
    local_steps: Steps  # private steps a round
    optimizer: Optimizer = Optimizer.SGD  # what steps once the noise is in
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0  # SGD only
    weight_decay: Annotated[float, Field(ge=0)] = 0.0  # AdamW only, decoupled
    warmup_steps: Annotated[int, Field(ge=0)] = 0  # local steps of linear warm-up, each round
    adaptive_clipping: AdaptiveClipping | None = None  # None: C stays; the plan's, no override

    def check_adaptive(self, expected_count: float) -> None:
        """Raise unless clipping is fixed, or adapts as it can; see `AdaptiveClipping.check`.

        Args:
            expected_count: how many units a batch has on average: declared units times rate.
        """
        if self.adaptive_clipping is not None:
            self.adaptive_clipping.check(
                clipping_norm=self.clipping_norm,
                noise_multiplier=self.noise_multiplier,
                expected_count=expected_count,
            )

    def sum_noise_multiplier(self, expected_count: float) -> float:
        """Return the noise multiplier of a step's sum alone: above sigma where a count is paid too.

        Args:
            expected_count: how many units a batch has on average: declared units times rate.
        """
        if self.adaptive_clipping is None:
            return self.noise_multiplier
        count_noise = self.adaptive_clipping.count_noise_for(expected_count)
        return sum_noise_multiplier(self.noise_multiplier, count_noise=count_noise)

    def to_json(self) -> str:
        """Return the text that keys and records bind; what is not set is left out of it."""
        return self.model_dump_json(exclude_none=True)


class Overrides(BaseModel):
    """Values laid over a complete set; None leaves what was there."""

    model_config = FROZEN

    learning_rate: Positive | None = None
    clipping_norm: Positive | None = None
    noise_multiplier: Positive | None = None
    sampling_rate: Rate | None = None
    local_steps: Steps | None = None
    optimizer: Optimizer | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None

    @classmethod
    def of(cls, whole: Hyperparameters) -> Self:
        """Return all that may be overridden, as it is in a complete set."""
        return cls.model_validate(whole.model_dump(include=set(cls.model_fields)))

    def over(self, below: Hyperparameters) -> Hyperparameters:
        """Return `below` with every value given here in its place."""
        return below.model_copy(update=self.model_dump(exclude_none=True))


class Range(BaseModel):
    """A closed interval; an end that is None is open."""

    model_config = FROZEN

    minimum: float | None = None  # least that may be given; None: no least
    maximum: float | None = None  # most that may be given; None: no most

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.least(float("-inf")) > self.most(float("inf")):
            msg = f"minimum {self.minimum} is above maximum {self.maximum}: no value fits"
            raise ValueError(msg)
        return self

    def least(self, otherwise: float) -> float:
        """Return the lower end, or `otherwise` where it is open."""
        return otherwise if self.minimum is None else self.minimum

    def most(self, otherwise: float) -> float:
        """Return the upper end, or `otherwise` where it is open."""
        return otherwise if self.maximum is None else self.maximum


class Bounds(BaseModel):
    """What a gateway may override, and how far; a field without a range may not be overridden."""

    model_config = FROZEN

    learning_rate: Range | None = None
    clipping_norm: Range | None = None
    noise_multiplier: Range | None = None
    sampling_rate: Range | None = None
    local_steps: Range | None = None
    momentum: Range | None = None
    weight_decay: Range | None = None
    warmup_steps: Range | None = None
    optimizer: tuple[Optimizer, ...] = ()  # the choices; none: may not be overridden

    @model_validator(mode="after")
    def _privacy_has_an_end(self) -> Self:
        ends = {}
        if self.noise_multiplier is not None:
            ends["noise_multiplier.minimum"] = self.noise_multiplier.minimum
        if self.sampling_rate is not None:
            ends["sampling_rate.maximum"] = self.sampling_rate.maximum
        if self.local_steps is not None:
            ends["local_steps.maximum"] = self.local_steps.maximum
        for name, end in ends.items():
            if end is None or end <= 0:
                msg = f"bounds.{name} must be given and above 0: it bounds what a run may spend"
                raise ValueError(msg)
        return self


@dataclass(frozen=True)
class Violation:
    """A value outside a bound: which, how far, whose rule."""

    field: str
    value: str
    bound: str
    rule: str  # whose: "the plan" or "this gateway's policy"

    @property
    def sentence(self) -> str:
        """The refusal in words."""
        return f"{self.field} = {self.value}: {self.rule} requires {self.bound}"


def violations(
    effective: Hyperparameters, *, bounds: Bounds, assigned: Hyperparameters
) -> tuple[Violation, ...]:
    """Return every way in which `effective` breaks the plan's `bounds`.

    Args:
        effective: what the gateway means to train with.
        bounds: the plan's.
        assigned: what the plan gives this gateway; a field without a range must equal it.
    """
    found = []
    for name in Hyperparameters.model_fields:
        value, given = getattr(effective, name), getattr(assigned, name)
        bound = _broken(value, given, getattr(bounds, name, None))
        if bound is not None:
            found.append(Violation(field=name, value=str(value), bound=bound, rule="the plan"))
    return tuple(found)


def _broken(
    value: float | Optimizer | AdaptiveClipping | None,
    given: float | Optimizer | AdaptiveClipping | None,
    allowed: Range | tuple[Optimizer, ...] | None,
) -> str | None:
    """Return the bound that `value` breaks, in words, or None."""
    if not isinstance(value, float | int) or not isinstance(allowed, Range):
        choices = allowed if isinstance(allowed, tuple) else ()
        if value == given or value in choices:
            return None
        return f"one of {', '.join(sorted({str(given), *choices}))}"
    if value < allowed.least(float("-inf")):
        return f"at least {allowed.minimum}"
    if value > allowed.most(float("inf")):
        return f"at most {allowed.maximum}"
    return None
