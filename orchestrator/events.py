"""What happens in a run. The journal holds these and nothing else; a run is their fold.

`remaining_s` is what was left until the deadline when the event was recorded, so that a restart
can go on with it: readings of a monotonic clock mean nothing to the next process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from common.bad_updates import UpdateRefusalReason
from common.ids import GatewayId, WeightsId
from common.protocol import Effective, Refusal, ScoreSet
from common.signatures import SignedAcceptance


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
    signed: SignedAcceptance | None = None  # None: of before, or from the same process


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
    norm_bound: float | None = None  # an update of a larger L2 norm is scaled down; None: none is
    quarantined: tuple[GatewayId, ...] = ()  # invited, and not counted


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
    norm: float | None = None  # its L2 norm as it was sent; None: recorded before norms were


@dataclass(frozen=True)
class UpdateSetAside:
    """A quarantined gateway's whole update was checked; it is not counted."""

    gateway: GatewayId
    digest: WeightsId
    remaining_s: float
    norm: float | None = None


@dataclass(frozen=True)
class UpdateRefused:
    """A gateway's whole update was checked and is wrong: none of it is taken in this round."""

    gateway: GatewayId
    digest: WeightsId
    reason: UpdateRefusalReason
    remaining_s: float


@dataclass(frozen=True)
class GatewayReleased:
    """A person took a gateway out of quarantine: from the next round on its updates count."""

    gateway: GatewayId


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
    weights_sha256: str = ""  # of the same bytes; an older version did not say


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
    | UpdateSetAside
    | UpdateRefused
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
    | GatewayReleased
    | RunCompleted
    | RunFailed
    | RunCancelled
    | ScoresRecorded
)
