"""What a plan says of updates that are wrong, or too large; and why one is refused.

Plans of before say nothing of it: their updates are averaged as they come, and nobody is set aside.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FACTOR = 3.0  # times the median norm: what honest gateways with unlike data stay below
_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class UpdateRefusalReason(StrEnum):
    """Why an update is refused for its round, in the order in which they are looked for."""

    MALFORMED = "malformed"  # no canonical header, or not as long as the form
    NAMES = "names"
    SHAPES = "shapes"
    ELEMENT_TYPE = "element_type"
    NOT_FINITE = "not_finite"
    ENCODING = "encoding"  # bytes that the wire format never writes
    OUT_OF_RANGE = "out_of_range"  # a coordinate is beyond what the sum takes
    NORM = "norm"  # far above the round's bound
    COPY = "copy"  # the very bytes of another gateway


class Standing(StrEnum):
    """What a gateway's updates of the run so far have come to."""

    GOOD = "good"
    WATCH = "watch"
    QUARANTINE = "quarantine"  # its updates are checked and not counted, until a person releases it


class NormMode(StrEnum):
    """Where the bound on an update's L2 norm comes from."""

    OFF = "off"
    MEDIAN = "median"  # of the norms of earlier rounds, times a factor
    FIXED = "fixed"


class UpdateNorm(BaseModel):
    """How large an update's L2 norm may be before it is scaled down.

    Source:
        Sun et al. 2019, "Can You Really Backdoor Federated Learning?", for the mean of updates
        that are clipped to a norm.
    """

    model_config = _FROZEN

    mode: NormMode = NormMode.MEDIAN  # where the bound comes from
    bound: Annotated[float, Field(gt=0)] | None = None  # in the units of the weights; fixed only
    factor: Annotated[float, Field(ge=1, le=10)] = FACTOR  # times the median

    @model_validator(mode="after")
    def _has_its_bound(self) -> Self:
        if (self.mode is NormMode.FIXED) is (self.bound is None):
            msg = (
                f"update_norm.bound is {self.bound} where update_norm.mode is {self.mode}: "
                'give one with mode = "fixed", and with no other'
            )
            raise ValueError(msg)
        return self

    @property
    def is_off(self) -> bool:
        """Whether norms are neither bounded nor looked at."""
        return self.mode is NormMode.OFF


class Reputation(BaseModel):
    """From which score on a gateway is watched, and from which its updates are set aside.

    A score is an exponential mean of the part of each update that was not taken, see
    `orchestrator.reputation`: 0 where all were counted as they came, 1 where all were refused.
    """

    model_config = _FROZEN

    watch: Annotated[float, Field(gt=0, le=1)] = 0.3  # score from which on a gateway is watched
    quarantine: Annotated[float, Field(gt=0)] = 0.6  # score; above 1: nobody is set aside

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.quarantine < self.watch:
            msg = (
                f"reputation.quarantine is {self.quarantine}, must be at least "
                f"reputation.watch = {self.watch}"
            )
            raise ValueError(msg)
        return self


PLAIN = UpdateNorm(mode=NormMode.OFF)


def is_plain(norm: UpdateNorm) -> bool:
    """Whether it is what a plan of before says, which has no field for it."""
    return norm.is_off
