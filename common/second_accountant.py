"""Epsilon once more, by other code than the accountants of `common.accounting`.

Renyi divergence of the Gaussian mechanism on Poisson samples, by numerical integration, for real
orders. It checks what the others say and decides nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from common.accounting import LARGEST_PLD, Epsilon, PrivacyEvent
from common.renyi import epsilon_renyi

TOLERANCE = 0.01


def epsilon_second(events: Iterable[PrivacyEvent], delta: float) -> float:
    """Return an upper bound on epsilon at `delta`; see `common.renyi`."""
    steps = Counter[tuple[float, float]]()
    for event in events:
        steps[event.noise_multiplier, event.sampling_rate] += event.steps
    return epsilon_renyi(steps, delta)


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
