"""What happens in a run. The journal holds these and nothing else; a run is their fold.

`remaining_s` is what was left until the deadline when the event was recorded, so that a restart
can go on with it: readings of a monotonic clock mean nothing to the next process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from common.ids import GatewayId, WeightsId
from common.protocol import Effective, Refusal, ScoreSet


@dataclass(frozen=True)
class RunStarted:
    """An operator started the run; gateways may answer its plan."""

    remaining_s: float


@dataclass(frozen=True)
class PlanAccepted:
    """A gateway will train with these values."""

    gateway: GatewayId
    effective: Effective
    remaining_s: float


@dataclass(frozen=True)
class PlanRefused:
    """A gateway will not train under this plan."""

    gateway: GatewayId
    refusal: Refusal
    remaining_s: float


@dataclass(frozen=True)
class RoundOpened:
    """These gateways were told to train from `parent`."""

    number: int  # of the published round that this becomes, from 1
    attempt: int  # how often this number was opened, from 1
    parent: WeightsId
    invited: tuple[GatewayId, ...]
    quorum: int
    remaining_s: float
    target: int | None = None  # updates that close it; None: those of everyone invited


@dataclass(frozen=True)
class RetryPostponed:
    """An abandoned round will be opened again once `remaining_s` are over."""

    remaining_s: float


@dataclass(frozen=True)
class SitesAwaited:
    """Too few gateways are there to open a round; the run fails if that lasts `remaining_s`."""

    remaining_s: float


@dataclass(frozen=True)
class UpdateAccepted:
    """A gateway's whole update was checked; it is in the sum, or will be before the mean."""

    gateway: GatewayId
    digest: WeightsId
    remaining_s: float


@dataclass(frozen=True)
class GatewayDeclined:
    """No update will come from this gateway in this round."""

    gateway: GatewayId
    refusal: Refusal
    remaining_s: float


@dataclass(frozen=True)
class UpdateLost:
    """An update that was received before a restart did not come again in time."""

    gateway: GatewayId


@dataclass(frozen=True)
class DeadlinePassed:
    """The round's time is over."""


@dataclass(frozen=True)
class RoundPublished:
    """The mean of the members' updates made `weights`, which are durable."""

    weights: WeightsId
    optimizer_state: WeightsId | None
    members: tuple[GatewayId, ...]


@dataclass(frozen=True)
class RoundAbandoned:
    """The round's updates made no weights that can be published."""

    reason: str


@dataclass(frozen=True)
class Restarted:
    """A new process took over: its sum is empty, so what was received must come again."""

    remaining_s: float


@dataclass(frozen=True)
class RunCompleted:
    """Every round was published; this is the run's model."""

    model: WeightsId
    model_sha256: str


@dataclass(frozen=True)
class RunFailed:
    """The run cannot go on."""

    reason: str


@dataclass(frozen=True)
class RunCancelled:
    """An operator ended the run."""


@dataclass(frozen=True)
class ScoresRecorded:
    """An evaluator scored some weights of the run."""

    scores: ScoreSet


RoundEvent: TypeAlias = (
    RoundOpened
    | UpdateAccepted
    | GatewayDeclined
    | UpdateLost
    | DeadlinePassed
    | RoundPublished
    | RoundAbandoned
    | Restarted
)
RunEvent: TypeAlias = (
    RoundEvent
    | RunStarted
    | PlanAccepted
    | PlanRefused
    | RetryPostponed
    | SitesAwaited
    | RunCompleted
    | RunFailed
    | RunCancelled
    | ScoresRecorded
)
