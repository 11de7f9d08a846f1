r"""Which gateways join a round.

Where a round has room for all of them they are all invited. Where it has not, they are drawn: by

.. math:: h_g = \mathrm{SHA256}(\text{plan digest}, \text{run}, \text{round}, g)

the smallest first. A digest is as good as a fresh coin for each round, run and plan, so everyone
has the same chance; and it is the same coin after a crash, which a generator's state would not be.
Whoever starts a run can know the draw beforehand. No privacy is claimed from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.ids import GatewayId, PlanId, RunId

_NOBODY: frozenset[GatewayId] = frozenset()


@dataclass(frozen=True)
class Presence:
    """Which gateways are here, as far as this process knows."""

    connected: frozenset[GatewayId] = _NOBODY
    left: frozenset[GatewayId] = _NOBODY  # were connected, are not; of others nothing is known


@dataclass(frozen=True)
class Draw:
    """What the choice among more gateways than a round invites depends on."""

    plan_digest: PlanId
    run_id: RunId
    number: int  # of the round, not of the attempt: a retry draws the same again

    def place(self, gateway: GatewayId) -> bytes:
        """Return the gateway's place in the order: 256 bits, as good as random."""
        parts = (self.plan_digest, self.run_id, str(self.number), gateway)
        return sha256(" ".join(parts).encode()).digest()  # none of them holds a space


def present(
    accepted: frozenset[GatewayId],
    presence: Presence,
    *,
    absent: frozenset[GatewayId],
    quorum: int,
) -> frozenset[GatewayId]:
    """Return those from whom a round's gateways are taken.

    Args:
        accepted: those that accepted the plan.
        presence: who is here.
        absent: those that were silent in the last round that they were invited to. They are left
            out while they are away, or every round would wait for the dead until its deadline.
        quorum: if fewer than this would be left, everyone who accepted is taken: they have until
            the deadline to come back.
    """
    here = accepted - (absent - presence.connected)
    return here if len(here) >= quorum else accepted


def select(
    candidates: frozenset[GatewayId],
    presence: Presence,
    *,
    invited: int | None,
    told: frozenset[GatewayId],
    draw: Draw,
) -> tuple[GatewayId, ...]:
    """Return the gateways to invite, sorted.

    Args:
        candidates: those from whom they are taken.
        presence: who is here.
        invited: how many to invite at most; None: all candidates.
        told: those that were told to train this round in an earlier attempt: they have paid for
            it, and go before those that have not. Before both go those that have not left.
        draw: what decides among equals.
    """

    def order(gateway: GatewayId) -> tuple[bool, bool, bytes]:
        return gateway in presence.left, gateway not in told, draw.place(gateway)

    return tuple(sorted(sorted(candidates, key=order)[:invited]))
