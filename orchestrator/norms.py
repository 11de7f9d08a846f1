"""How large an update may be, and what it is scaled by: functions of what the journal holds.

A bound is frozen when its round opens. Otherwise it would depend on the order of arrival, and a
restart would give other bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import TYPE_CHECKING

from common.bad_updates import NormMode
from common.errors import RequestError

if TYPE_CHECKING:
    from common.bad_updates import UpdateNorm
    from common.ids import GatewayId

REFUSED = 10.0  # times the bound: beyond it nothing of an update is taken

Norms = Mapping["GatewayId", float]  # each gateway's newest, as it was counted


class NormTooLarge(RequestError):
    """An update is so large that it is not even scaled down."""

    def __init__(self, norm: float) -> None:
        super().__init__(
            f"the update's L2 norm is {norm:.4g}, more than {REFUSED:g} times what this round "
            "allows: nothing of it was counted; lower the learning rate or check the data"
        )


def norm_bound(how: UpdateNorm, known: Norms) -> float | None:
    """Return the bound of the round that opens next; None: there is none.

    Args:
        how: what the plan says.
        known: of the rounds that were published before. While there are none, or half of them are
            zero, a bound by the median is none. Every gateway has one, however often it was in a
            round: a few that always come first would soon be the most, and set the bound.
    """
    if how.mode is not NormMode.MEDIAN:
        return how.bound
    return (how.factor * median(known.values()) or None) if known else None


def factor(norm: float | None, bound: float | None) -> float:
    r"""Return :math:`\min(1, b / n)`: what an update of norm n is multiplied by for the sum."""
    if norm is None or bound is None or norm <= bound:
        return 1.0
    return bound / norm


def check_norm(norm: float | None, bound: float | None) -> None:
    """Raise NormTooLarge unless an update of that norm may be counted."""
    if norm is not None and bound is not None and norm > REFUSED * bound:
        raise NormTooLarge(norm)


def remembered(known: Norms, norms: Norms, bound: float | None) -> Norms:
    """Return what is known after one round more, whose norms count at most as its bound."""
    counted = {name: norm if bound is None else min(norm, bound) for name, norm in norms.items()}
    return {**known, **counted}
