r"""What a gateway's updates have come to: a fold over the published rounds, and nothing else.

With :math:`x = 1` for an update that was refused, 1/2 for one that was scaled down and 0 for one
that was taken as it came, a published round moves the gateway's score by

.. math:: s \leftarrow s + \tfrac15 (x - s)

A round in which it sent nothing leaves the score. By scaling down alone a score stays below 1/2:
under the default thresholds a gateway with unlike data is watched for that, and never set aside.

Who reaches `quarantine` stays there until a person releases it, which sets the score to 0. A score
never changes a gateway's weight in the average: a good name can be farmed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from common.bad_updates import Standing
from orchestrator.norms import is_clipped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.bad_updates import Reputation
    from common.ids import GatewayId
    from orchestrator.rounds import Round

RATE = 0.2
REFUSED, CLIPPED, TAKEN = 1.0, 0.5, 0.0


@dataclass(frozen=True)
class Record:
    """What one gateway's updates have come to so far."""

    score: float = 0.0
    rounds_refused: int = 0
    rounds_clipped: int = 0
    is_in_quarantine: bool = False


NOTHING = Record()


@dataclass(frozen=True)
class Records:
    """Those of all gateways of a run; who is not there has an empty one."""

    by_gateway: Mapping[GatewayId, Record] = field(default_factory=dict)

    def of(self, gateway: GatewayId) -> Record:
        """Return the record of `gateway`."""
        return self.by_gateway.get(gateway, NOTHING)

    @property
    def quarantined(self) -> frozenset[GatewayId]:
        """Those whose updates are not counted."""
        return frozenset(g for g, record in self.by_gateway.items() if record.is_in_quarantine)


def after_round(records: Records, state: Round, thresholds: Reputation | None) -> Records:
    """Return the records after the published round `state`."""
    changed = {
        gateway: _after(records.of(gateway), outcome, thresholds)
        for gateway, outcome in _outcomes(state).items()
    }
    return Records({**records.by_gateway, **changed})


def released(records: Records, gateway: GatewayId) -> Records:
    """Return the records after a person has released `gateway`."""
    again = replace(records.of(gateway), score=0.0, is_in_quarantine=False)
    return Records({**records.by_gateway, gateway: again})


def standing(record: Record, thresholds: Reputation) -> Standing:
    """Return what a score means under a plan's thresholds."""
    if record.is_in_quarantine:
        return Standing.QUARANTINE
    return Standing.WATCH if record.score >= thresholds.watch else Standing.GOOD


def _outcomes(state: Round) -> dict[GatewayId, float]:
    seen = (*state.received, *state.set_aside)
    outcomes = {
        gateway: CLIPPED if is_clipped(state.norms.get(gateway), state.norm_bound) else TAKEN
        for gateway in seen
    }
    return outcomes | dict.fromkeys(state.refused, REFUSED)


def _after(record: Record, outcome: float, thresholds: Reputation | None) -> Record:
    score = record.score + RATE * (outcome - record.score)
    is_beyond = thresholds is not None and score >= thresholds.quarantine
    return Record(
        score=score,
        rounds_refused=record.rounds_refused + (outcome == REFUSED),
        rounds_clipped=record.rounds_clipped + (outcome == CLIPPED),
        is_in_quarantine=record.is_in_quarantine or is_beyond,
    )
