"""Epsilon spent by steps of differentially private training.

What is accounted is a multiset of Gaussian mechanisms on Poisson samples; epsilon is a pure
function of it. Two accountants of dp-accounting answer: privacy loss distributions (PLD), whose
figure is printed, and Renyi differential privacy (RDP), printed beside it and used as a filter.
Neighbouring data sets differ by one unit added or removed (`Relation.ADD_OR_REMOVE_ONE`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeAlias

from common.errors import ImpossibleEvent
from common.hyperparameters import Hyperparameters
from common.plan import Plan, Relation

PLD_INTERVAL = 1e-4  # width of a bucket of the privacy loss; always rounded to the worse side
COARSE_INTERVAL = 1e-3  # ten times as fast
LARGEST_PLD = 1000.0  # above, RDP's bound stands in: no such epsilon protects anyone
MOST_PLD_STEPS = 1_000_000  # above, RDP's bound stands in: PLD would not come to an end
INTEGER_ORDERS: tuple[int, ...] = (*range(2, 64), 128, 256, 512, 1024)
FEW_ORDERS = (2, 4, 8, 16, 32)  # enough to tell whether epsilon is near what PLD cannot do

Steps: TypeAlias = tuple[tuple[tuple[float, float], int], ...]  # ((sigma, q), steps), sorted


class Mechanism(StrEnum):
    """What one accounted step did."""

    POISSON_GAUSSIAN = "poisson_gaussian"  # Gaussian noise on a sum over a Poisson sample


@dataclass(frozen=True)
class PrivacyEvent:
    """Steps of one mechanism, as the ledger books them."""

    noise_multiplier: float  # sigma: standard deviation of the sum's noise over the clipping norm
    sampling_rate: float  # q: probability that a unit is in a step's batch; 1: no sampling
    steps: int
    mechanism: Mechanism = Mechanism.POISSON_GAUSSIAN

    def __post_init__(self) -> None:
        if not 0 < self.noise_multiplier < math.inf:
            raise ImpossibleEvent("noise_multiplier", self.noise_multiplier, "above 0 and finite")
        if not 0 < self.sampling_rate <= 1:
            raise ImpossibleEvent("sampling_rate", self.sampling_rate, "above 0 and at most 1")
        if self.steps < 0:
            raise ImpossibleEvent("steps", self.steps, "at least 0")

    def times(self, rounds: int) -> PrivacyEvent:
        """Return the event that repeats this one `rounds` times."""
        steps = self.steps * rounds
        return PrivacyEvent(self.noise_multiplier, self.sampling_rate, steps, self.mechanism)


def round_event(how: Hyperparameters) -> PrivacyEvent:
    """Return what one round of `how` will cost, for projections: nothing is drawn."""
    return PrivacyEvent(how.noise_multiplier, how.sampling_rate, how.local_steps)


@dataclass(frozen=True)
class Epsilon:
    """What was spent, by both accountants; never shown without its delta and relation."""

    pld: float
    rdp: float
    delta: float
    relation: Relation = Relation.ADD_OR_REMOVE_ONE


@dataclass(frozen=True)
class Budget:
    """At most `epsilon` at `delta`, fixed before the first release on a data set."""

    epsilon: float
    delta: float

    def order_for(self, first: PrivacyEvent) -> int:
        """Return the one Renyi order that the filter looks at: fixed by the first event.

        It is the order at which the most steps like the first fill the budget. Nothing has been
        released before the first event, so the order does not depend on the data.
        """
        curve = _rdp_curve(first.noise_multiplier, first.sampling_rate, INTEGER_ORDERS)
        room = [self.epsilon - _conversion(order, self.delta) for order in INTEGER_ORDERS]
        steps = [space / spends for space, spends in zip(room, curve, strict=True)]
        return INTEGER_ORDERS[steps.index(max(steps))]


def epsilon(events: Iterable[PrivacyEvent], delta: float) -> Epsilon:
    """Return what `events` spend together at `delta`, by both accountants."""
    merged = _merged(events)
    return Epsilon(pld=_pld(merged, delta, PLD_INTERVAL), rdp=_rdp(merged, delta), delta=delta)


def epsilon_pld(
    events: Iterable[PrivacyEvent], delta: float, *, interval: float = PLD_INTERVAL
) -> float:
    """Return an upper bound on epsilon at `delta` from privacy loss distributions.

    It holds for `events` on the same data that were all fixed before any of them was released.
    Buckets of a wider `interval` are quicker and give a larger bound.

    Source:
        Doroshenko et al. 2022, "Connect the Dots: Tighter Discrete Approximations of Privacy
        Loss Distributions"; the discretisation rounds every loss up.
    """
    return _pld(_merged(events), delta, interval)


def epsilon_replace_one(events: Iterable[PrivacyEvent], delta: float) -> float:
    """Return an upper bound on epsilon by PLD where neighbours differ by one unit exchanged.

    It is infinite where adding or removing one unit already costs more than PLD can say.
    """
    return _pld(_merged(events), delta, PLD_INTERVAL, replaced=True)


def epsilon_at_bounds(plan: Plan) -> float:
    """Return the most that `plan` lets any gateway spend, at its delta: by PLD, at its bounds."""
    noise_multiplier, sampling_rate, steps = plan.loosest()
    loosest = PrivacyEvent(noise_multiplier, sampling_rate, steps).times(plan.rounds.count)
    return epsilon_pld((loosest,), plan.privacy.delta)


def epsilon_rdp(events: Iterable[PrivacyEvent], delta: float) -> float:
    """Return an upper bound on epsilon at `delta` from Renyi differential privacy, at once.

    It holds for `events` on the same data that were all fixed before any of them was released.

    Source:
        Mironov, Talwar and Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian
        Mechanism"; conversion of Canonne, Kamath and Steinke 2020, Proposition 12.
    """
    return _rdp(_merged(events), delta)


def is_within(
    budget: Budget, *, spent: Iterable[PrivacyEvent], planned: PrivacyEvent, delta: float
) -> bool:
    """Whether `planned` may be run after `spent` on the same data.

    The first plan on a data set is fixed before any release and is judged as one block by PLD.
    Later ones may depend on what was released, so everything must pass a Renyi filter: the sum
    at one order, fixed by the first of `spent`, holds for adaptive choices too, as the best order
    does not.

    Source:
        Feldman and Zrnic 2021, "Individual Privacy Accounting via a Renyi Filter".
    """
    return affords(budget, tuple(spent), planned, delta, PLD_INTERVAL)


def affords(
    budget: Budget,
    spent: tuple[PrivacyEvent, ...],
    planned: PrivacyEvent,
    delta: float,
    interval: float,
) -> bool:
    """Answer as `is_within`, by buckets of a width: wide ones are quicker and refuse more."""
    everything = _merged((*spent, planned))
    if spent:
        order = budget.order_for(spent[0])
        return _rdp(everything, delta, (order,)) <= budget.epsilon
    return _pld(everything, delta, interval) <= budget.epsilon


def rounded_up(value: float, decimals: int = 4) -> str:
    """Return `value` for people to read, never below what it is."""
    if not math.isfinite(value):
        return str(value)
    return str(Decimal(value).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_CEILING))


def _merged(events: Iterable[PrivacyEvent]) -> Steps:
    """Add up the steps of equal mechanisms."""
    steps: dict[tuple[float, float], int] = {}
    for event in events:
        key = (event.noise_multiplier, event.sampling_rate)
        steps[key] = steps.get(key, 0) + event.steps
    return tuple(sorted((key, count) for key, count in steps.items() if count))


@lru_cache(maxsize=1024)
def _pld(steps: Steps, delta: float, interval: float, *, replaced: bool = False) -> float:
    from dp_accounting import NeighboringRelation  # noqa: PLC0415
    from dp_accounting.pld import PLDAccountant  # noqa: PLC0415  # a second to import

    bound = _rdp(steps, delta, FEW_ORDERS)
    if bound > LARGEST_PLD or not 0 < sum(count for _, count in steps) <= MOST_PLD_STEPS:
        return math.inf if replaced and steps else _rdp(steps, delta)
    relation = "REPLACE_ONE" if replaced else "ADD_OR_REMOVE_ONE"
    accountant = PLDAccountant(
        NeighboringRelation[relation],
        # above an epsilon of 100 wider buckets bound the memory that a hostile plan can ask for
        value_discretization_interval=interval * max(1.0, bound / 100),
    )
    for (sigma, rate), count in steps:
        accountant.compose(_dp_event(sigma, rate), count)
    return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=1024)
def _rdp(steps: Steps, delta: float, orders: tuple[int, ...] | None = None) -> float:
    from dp_accounting import rdp  # noqa: PLC0415  # a second to import

    if not steps:
        return 0.0
    used = orders or rdp.rdp_privacy_accountant.DEFAULT_RDP_ORDERS
    try:
        curves = [count * _rdp_curve(sigma, rate, orders) for (sigma, rate), count in steps]
        return float(rdp.compute_epsilon(used, sum(curves), delta)[0])
    except ArithmeticError:  # next to no noise
        return math.inf


def _conversion(order: int, delta: float) -> float:
    """Return what epsilon is above the Renyi divergence (Canonne et al. 2020, Proposition 12)."""
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


@lru_cache(maxsize=1024)
def _rdp_curve(sigma: float, rate: float, orders: tuple[int, ...] | None) -> Any:
    """Return the Renyi divergence of one step at each order, a numpy array."""
    from absl.logging import get_absl_logger  # noqa: PLC0415  # dp-accounting warns through it
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415  # a second to import

    get_absl_logger().addFilter(_is_unexpected)
    return RdpAccountant(orders).compose(_dp_event(sigma, rate)).rdp


def _is_unexpected(record: Any) -> bool:
    """Drop one known warning: a low order that does not converge is left out, the rest holds."""
    return "failed to converge" not in record.msg


def _dp_event(sigma: float, rate: float) -> Any:
    """Return dp-accounting's name for one step; without sampling, the plain Gaussian mechanism."""
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent  # noqa: PLC0415

    gaussian = GaussianDpEvent(sigma)
    return gaussian if rate == 1 else PoissonSampledDpEvent(rate, gaussian)
