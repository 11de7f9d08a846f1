"""The least noise, the largest rate and the last round that a target or a budget leaves room for.

Each is a search among plans that only get dearer, with the accountant's own figure as the judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from common.accounting import (
    COARSE_INTERVAL,
    PLD_INTERVAL,
    Budget,
    PrivacyEvent,
    affords,
    epsilon_pld,
)
from common.errors import RequestError

SIGMA_PARTS = 10_000  # a calibrated noise multiplier has four decimals
LARGEST_SIGMA = 1_000_000
RATE_PARTS = 10_000  # of a sampling rate, as above


class TargetOutOfReach(RequestError):
    """No noise brings epsilon down to the target."""

    field = "target_epsilon"

    def __init__(self, target_epsilon: float) -> None:
        super().__init__(
            f"no noise multiplier up to {LARGEST_SIGMA} reaches epsilon {target_epsilon}: "
            "ask for a larger epsilon, fewer steps or a lower sampling rate"
        )


def last_affordable_round(
    spent: Iterable[PrivacyEvent],
    per_round: PrivacyEvent,
    *,
    budget: Budget,
    delta: float,
    rounds: int,
) -> int:
    """Return the last of `rounds` equal rounds that the budget affords after `spent`; 0: none."""
    before = tuple(spent)

    def unaffordable(count: int, interval: float) -> bool:
        return not affords(budget, before, per_round.times(count), delta, interval)

    return _least(unaffordable, 0, rounds + 1) - 1


def noise_for(target_epsilon: float, *, sampling_rate: float, steps: int, delta: float) -> float:
    """Return the least noise multiplier, of four decimals, whose epsilon is within the target.

    Raises:
        TargetOutOfReach: not even a million times the clipping norm is enough noise.
    """

    def enough(parts: int, interval: float) -> bool:
        event = PrivacyEvent(parts / SIGMA_PARTS, sampling_rate, steps)
        return epsilon_pld((event,), delta, interval=interval) <= target_epsilon

    low, high = 0, SIGMA_PARTS
    while not enough(high, COARSE_INTERVAL):
        low, high = high, 2 * high
        if high > LARGEST_SIGMA * SIGMA_PARTS:
            raise TargetOutOfReach(target_epsilon)
    return _least(enough, low // 2, high) / SIGMA_PARTS  # `low` may do with fine buckets


def rate_for(
    target_epsilon: float, *, noise_multiplier: float, steps: int, delta: float
) -> float | None:
    """Return the largest sampling rate, of four decimals, within the target, or None."""

    def too_much(parts: int, interval: float) -> bool:
        event = PrivacyEvent(noise_multiplier, parts / RATE_PARTS, steps)
        return epsilon_pld((event,), delta, interval=interval) > target_epsilon

    parts = _least(too_much, 0, RATE_PARTS + 1) - 1
    return parts / RATE_PARTS or None


def _least(holds: Callable[[int, float], bool], low: int, high: int) -> int:
    """Return the least n in (low, high] for which `holds`, which never turns false again.

    Coarse buckets find about where it lies, fine ones decide: two of them, most often.
    """

    def fine(n: int) -> bool:
        return n > low and (n >= high or holds(n, PLD_INTERVAL))

    right = _bisect(lambda n: holds(n, COARSE_INTERVAL), low, high)
    left, reach = right - 1, 1
    while not fine(right):
        left, right, reach = right, right + reach, 4 * reach
    while fine(left):
        left, right, reach = left - reach, left, 4 * reach
    return _bisect(fine, left, right)


def _bisect(holds: Callable[[int], bool], low: int, high: int) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
