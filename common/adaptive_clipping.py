r"""Clipping at a norm that follows a quantile of the gradients' norms, and what it costs.

A step then releases two things: the noised sum of the clipped gradients, and a noised count of
the gradients that lay within the clipping norm C. Every example in the batch adds a bit b of
+1/2 (its norm is at most C) or -1/2 (it is not) to the count, which is divided by the expected
count, a constant; 1/2 more is the noisy fraction. Adding or removing one example moves the count
by 1/2, so noise of standard deviation s_b on it is a noise multiplier of 2 s_b.

The next C depends on the noisy fraction alone: it is post-processing, and as public as the noised
sum.

Source:
    Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially Private Learning with Adaptive
    Clipping": Theorem 1 for the split, Algorithm 1 for the update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from common.accounting import ImpossibleEvent
from common.errors import RequestError

SHARE_OF_COUNT = 20  # the count's noise is by default the expected count over this
LARGEST_EXPONENT = 700.0  # what exp can hold; any bound has been passed long before


class TooLittleCountNoise(RequestError):
    """The count alone spends what count and sum may spend together."""

    field = "noise_multiplier"

    def __init__(self, noise_multiplier: float, count_noise: float) -> None:
        super().__init__(
            f"noise of standard deviation {count_noise} on the count of gradients within the "
            f"clipping norm leaves nothing for the sum at a noise multiplier of "
            f"{noise_multiplier}: raise the count's noise above {noise_multiplier / 2}, expect "
            "more examples in a batch, or lower the noise multiplier"
        )


def default_count_noise(expected_count: float) -> float:
    """Return s_b, the standard deviation of the count's noise, in examples: a twentieth."""
    _need_positive("expected_count", expected_count)
    return expected_count / SHARE_OF_COUNT


def sum_noise_multiplier(noise_multiplier: float, *, count_noise: float) -> float:
    r"""Return the noise multiplier of the sum that leaves room for the count.

    .. math:: z_d = \left(z^{-2} - (2 s_b)^{-2}\right)^{-1/2}

    Args:
        noise_multiplier: z > 0, of both releases together; what the ledger books.
        count_noise: s_b, standard deviation of the noise on the count, in examples.

    Returns:
        z_d > z: with noise of z_d * C on the sum and s_b on the count, the pair is one Gaussian
        mechanism of noise multiplier z.

    Raises:
        TooLittleCountNoise: z is at least 2 s_b.

    Source:
        Andrew et al. 2021, Theorem 1.
    """
    _need_positive("noise_multiplier", noise_multiplier)
    _need_positive("count_noise", count_noise)
    if noise_multiplier >= 2 * count_noise:
        raise TooLittleCountNoise(noise_multiplier, count_noise)
    ratio = noise_multiplier / (2 * count_noise)
    return noise_multiplier / math.sqrt((1 - ratio) * (1 + ratio))  # no difference of squares


@dataclass(frozen=True)
class AdaptiveClipping:
    """How the clipping norm is moved; every value is fixed before the data are read."""

    smallest: float  # C_min, in gradient units
    largest: float  # C_max, in gradient units
    target_quantile: float = 0.5  # gamma: the share of gradients that shall lie within the norm
    rate: float = 0.2  # eta: how far one step moves the norm's logarithm

    def __post_init__(self) -> None:
        _need_positive("smallest", self.smallest)
        _need_positive("rate", self.rate)
        if not self.smallest <= self.largest < math.inf:
            need = f"finite and at least {self.smallest}"
            raise ImpossibleEvent("largest", self.largest, need)
        if not 0 <= self.target_quantile <= 1:
            raise ImpossibleEvent("target_quantile", self.target_quantile, "from 0 to 1")

    def next_norm(self, clipping_norm: float, *, noisy_fraction: float) -> float:
        r"""Return the clipping norm of the next step, within the bounds.

        .. math:: C \leftarrow C \cdot \exp(-\eta (\tilde b - \gamma))

        Args:
            clipping_norm: C, in gradient units.
            noisy_fraction: the noised share of gradients within C; noise may take it
                below 0 or above 1.

        Source:
            Andrew et al. 2021, Algorithm 1, the geometric update.
        """
        exponent = -self.rate * (noisy_fraction - self.target_quantile)
        moved = clipping_norm * math.exp(min(exponent, LARGEST_EXPONENT))
        return min(max(moved, self.smallest), self.largest)


def _need_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ImpossibleEvent(name, value, "above 0 and finite")
