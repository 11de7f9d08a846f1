"""Which gateways join a round."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.ids import GatewayId


def select(
    accepted: frozenset[GatewayId],
    *,
    absent: frozenset[GatewayId],
    connected: frozenset[GatewayId],
    quorum: int,
) -> tuple[GatewayId, ...]:
    """Return the gateways to invite, sorted.

    Args:
        accepted: those that accepted the plan.
        absent: those that were silent in the last round that they were invited to. They are left
            out while they are away, or every round would wait for the dead until its deadline.
        connected: those that are here now.
        quorum: if fewer than this would be left, everyone who accepted is invited: they have
            until the deadline to come back.
    """
    present = accepted - (absent - connected)
    return tuple(sorted(present if len(present) >= quorum else accepted))
