"""Epsilon once more, by other code than the accountants of `common.accounting`.

Renyi divergence of the Gaussian mechanism on Poisson samples, by numerical integration, for real
orders. It checks what the others say and decides nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from common.accounting import LARGEST_PLD, Epsilon, PrivacyEvent

ORDERS: tuple[float, ...] = (
    *(1 + tenths / 10 for tenths in range(1, 100)),
    *range(11, 64),
    *(128, 256, 512, 1024),
)
TAIL = 12.0  # standard deviations: what lies beyond is below 1e-31 of the whole
MOST_POINTS = 1 << 20  # an order that needs more is left out, which can only raise epsilon
TOLERANCE = 0.01


def epsilon_second(events: Iterable[PrivacyEvent], delta: float) -> float:
    """Return an upper bound on epsilon at `delta` where neighbours differ by one unit more or less.

    Source:
        Mironov, Talwar and Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian
        Mechanism", Theorems 4 and 5; conversion of Canonne, Kamath and Steinke 2020,
        Proposition 12.
    """
    steps = Counter[tuple[float, float]]()
    for event in events:
        steps[event.noise_multiplier, event.sampling_rate] += event.steps
    if not +steps:
        return 0.0
    found = math.inf
    for order in ORDERS:
        spent = sum(count * divergence(order, *each) for each, count in steps.items())
        conversion = math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        found = min(found, spent + conversion)
    return max(0.0, found)


def agrees(spent: Epsilon, second: float) -> bool:
    """Whether the second figure bears out the first two.

    It may be at most 1 % above RDP's, which is the same bound, and 1 % below PLD's, which is the
    tighter one. Between them it may lie: dp-accounting leaves out low orders whose series do not
    converge, which the integral here does not need (an epsilon above 20, most often).
    """
    if math.isinf(second):  # next to no noise: no order was computed
        return spent.rdp > LARGEST_PLD
    stands_in = spent.pld == spent.rdp  # where PLD would not come to an end
    above_pld = stands_in or spent.pld <= (1 + TOLERANCE) * second
    return above_pld and second <= (1 + TOLERANCE) * spent.rdp


@lru_cache(maxsize=4096)
def divergence(order: float, noise_multiplier: float, sampling_rate: float) -> float:
    r"""Return the Renyi divergence of one step, infinite where it is not computed.

    .. math:: \frac{1}{\alpha-1} \log \mathbb{E}_{z \sim N(0,\sigma^2)}
        \left(1 - q + q\, e^{(2z-1)/2\sigma^2}\right)^\alpha

    The trapezoid rule converges geometrically here: the step is a quarter of the distance at which
    the integrand stops being analytic, or of the noise's width.
    """
    sigma, rate = noise_multiplier, sampling_rate
    if rate == 1:
        return order / (2 * sigma**2)
    width = min(sigma, sigma**2) / 4
    low, high = -TAIL * sigma, order + TAIL * sigma
    if not (high - low) / width < MOST_POINTS:
        return math.inf
    z = np.arange(low, high, width)
    mixture = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * sigma**2))
    logs = order * mixture - z**2 / (2 * sigma**2)
    largest = float(logs.max())
    integral = float(np.exp(logs - largest).sum()) * width / (sigma * math.sqrt(2 * math.pi))
    return max(0.0, (largest + math.log(integral)) / (order - 1))
