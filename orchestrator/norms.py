"""How large an update may be, and what it is scaled by: functions of what the journal holds.

A bound is frozen when its round opens. Otherwise it would depend on the order of arrival, and a
restart would give other bits.
"""

from __future__ import annotations

from itertools import chain
from statistics import median
from typing import TYPE_CHECKING

from common.bad_updates import NormMode
from common.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from common.bad_updates import UpdateNorm

REFUSED = 10.0  # times the bound: beyond it nothing of an update is taken
REMEMBERED = 20  # published rounds whose norms make the next bound

Norms = tuple[float, ...]  # of one published round's members, as they were counted


class NormTooLarge(RequestError):
    """An update is so large that it is not even scaled down."""

    def __init__(self, norm: float) -> None:
        super().__init__(
            f"the update's L2 norm is {norm:.4g}, more than {REFUSED:g} times what this round "
            "allows: nothing of it was counted; lower the learning rate or check the data"
        )


def norm_bound(how: UpdateNorm, history: Sequence[Norms]) -> float | None:
    """Return the bound of the round that opens next; None: there is none.

    Args:
        how: what the plan says.
        history: the norms of the rounds that were published before. While there are none, or half
            of them are zero, a bound by the median is none.
    """
    if how.mode is not NormMode.MEDIAN:
        return how.bound
    known = sorted(chain.from_iterable(history))
    return (how.factor * median(known) or None) if known else None


def factor(norm: float | None, bound: float | None) -> float:
    r"""Return :math:`\min(1, b / n)`: what an update of norm n is multiplied by for the sum."""
    if norm is None or bound is None or norm <= bound:
        return 1.0
    return bound / norm


def check_norm(norm: float | None, bound: float | None) -> None:
    """Raise NormTooLarge unless an update of that norm may be counted."""
    if norm is not None and bound is not None and norm > REFUSED * bound:
        raise NormTooLarge(norm)


def remembered(
    history: Sequence[Norms], norms: Iterable[float], bound: float | None
) -> tuple[Norms, ...]:
    """Return `history` with one round more, whose norms count at most as its bound."""
    counted = tuple(sorted(norm if bound is None else min(norm, bound) for norm in norms))
    return (*history, counted)[-REMEMBERED:]
