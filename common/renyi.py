"""Renyi differential privacy of Gaussian steps on Poisson samples, by numerical integration.

Needs numpy alone: the orchestrator can work out an upper bound on what a run has spent.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

ORDERS: tuple[float, ...] = (
    *(1 + tenths / 10 for tenths in range(1, 100)),
    *range(11, 64),
    *(128, 256, 512, 1024),
)
TAIL = 12.0  # standard deviations: what lies beyond is below 1e-31 of the whole
MOST_POINTS = 1 << 20  # an order that needs more is left out, which can only raise epsilon


def epsilon_renyi(steps: Mapping[tuple[float, float], int], delta: float) -> float:
    """Return an upper bound on epsilon at `delta` where neighbours differ by one unit more or less.

    Args:
        steps: how many there were, by (noise multiplier, sampling rate).
        delta: of the promise.

    Source:
        Mironov, Talwar and Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian
        Mechanism", Theorems 4 and 5; conversion of Canonne, Kamath and Steinke 2020,
        Proposition 12.
    """
    spent = [count * curve(*each) for each, count in steps.items() if count > 0]
    if not spent:
        return 0.0
    orders = np.array(ORDERS)
    conversion = np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    return max(0.0, float((sum(spent) + conversion).min()))


@lru_cache(maxsize=1024)
def curve(noise_multiplier: float, sampling_rate: float) -> NDArray[np.float64]:
    """Return the divergence of one step at each of ORDERS; not to be written to."""
    found = [divergence(order, noise_multiplier, sampling_rate) for order in ORDERS]
    return np.array(found)


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
