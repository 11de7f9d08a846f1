r"""What a gateway's updates have come to: a fold over the published rounds, and nothing else.

With x the part of an update that was not taken (1 where it was refused, :math:`1 - b / n` where its
norm n was above the bound b, else 0), a published round moves the gateway's score by

.. math:: s \leftarrow s + \tfrac15 (x - s)

A round in which it sent nothing leaves the score. Under the default thresholds a gateway is set
aside for refused updates, five in a row, or where its norm stays above two and a half times the
bound: what honest gateways with unlike data do not reach.

Who reaches `quarantine` stays there until a person releases it, which sets the score to 0. A score
never changes a gateway's weight in the average: a good name can be farmed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from common.bad_updates import Standing
from orchestrator.norms import factor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.bad_updates import Reputation
    from common.ids import GatewayId
    from orchestrator.rounds import Round

RATE = 0.2
REFUSED = 1.0


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
    """Return the part of each gateway's update that was not taken, or would not have been."""
    outcomes = {
        gateway: 1.0 - factor(state.norms.get(gateway), state.norm_bound)
        for gateway in (*state.received, *state.set_aside)
    }
    return outcomes | dict.fromkeys(state.refused, REFUSED)


def _after(record: Record, outcome: float, thresholds: Reputation | None) -> Record:
    score = record.score + RATE * (outcome - record.score)
    is_beyond = thresholds is not None and score >= thresholds.quarantine
    return Record(
        score=score,
        rounds_refused=record.rounds_refused + (outcome == REFUSED),
        rounds_clipped=record.rounds_clipped + (0.0 < outcome < REFUSED),
        is_in_quarantine=record.is_in_quarantine or is_beyond,
    )
