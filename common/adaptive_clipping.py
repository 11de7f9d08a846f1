r"""Clipping at a norm that follows a quantile of the gradients' norms, and what it costs.

A step then releases two things: the noised sum of the clipped gradients, and a noised count of
the gradients that lay within the clipping norm C. Every unit in the batch adds b to the count,
+1/2 if its norm is within C and -1/2 if not, and the count is divided by the expected count, a
constant; 1/2 more is the noisy fraction. Adding or removing one unit moves the count by at most
1/2, so noise of standard deviation s_b on it is a noise multiplier of 2 s_b.

The next C depends on the noisy fraction alone: it is post-processing, and as public as the noised
sum.

Source:
    Andrew, Thakkar, McMahan and Ramaswamy 2021, "Differentially Private Learning with Adaptive
    Clipping": Theorem 1 for the split, Algorithm 1 for the update.
"""

from __future__ import annotations

import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.errors import ImpossibleEvent, RequestError

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
            "more units in a batch, or lower the noise multiplier"
        )


class FirstNormOutside(RequestError):
    """The norm that clipping begins with is not within the bounds that it may move in."""

    field = "clipping_norm"

    def __init__(self, clipping_norm: float, bounds: AdaptiveClipping) -> None:
        super().__init__(
            f"clipping_norm = {clipping_norm}: adaptive clipping begins with it and moves within "
            f"smallest = {bounds.smallest} and largest = {bounds.largest}: choose it between them"
        )


def default_count_noise(expected_count: float) -> float:
    """Return s_b, the standard deviation of the count's noise, in units: a twentieth."""
    _need_positive("expected_count", expected_count)
    return expected_count / SHARE_OF_COUNT


def sum_noise_multiplier(noise_multiplier: float, *, count_noise: float) -> float:
    r"""Return the noise multiplier of the sum that leaves room for the count.

    .. math:: z_d = \left(z^{-2} - (2 s_b)^{-2}\right)^{-1/2}

    Args:
        noise_multiplier: z > 0, of both releases together; what the ledger books.
        count_noise: s_b, standard deviation of the noise on the count, in units of privacy.

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


class AdaptiveClipping(BaseModel):
    """How the clipping norm is moved; every value is fixed before the data are read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    smallest: Annotated[float, Field(gt=0)]  # C_min, in gradient units
    largest: Annotated[float, Field(gt=0)]  # C_max, in gradient units
    target_quantile: Annotated[float, Field(ge=0, le=1)] = 0.5  # gamma: wanted share within C
    rate: Annotated[float, Field(gt=0)] = 0.2  # eta: how far one step moves the norm's logarithm
    count_noise: Annotated[float, Field(gt=0)] | None = None  # s_b, in units; None: the default

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.largest < self.smallest:
            msg = f"largest is {self.largest}, must be at least smallest = {self.smallest}"
            raise ValueError(msg)
        return self

    def count_noise_for(self, expected_count: float) -> float:
        """Return s_b, the standard deviation of the count's noise: the plan's, or the default.

        Args:
            expected_count: how many units a batch has on average, a public constant.
        """
        return self.count_noise or default_count_noise(expected_count)

    def check(
        self, *, clipping_norm: float, noise_multiplier: float, expected_count: float
    ) -> None:
        """Raise unless a step can begin at `clipping_norm` and pay for its count.

        Args:
            clipping_norm: the first C, in gradient units.
            noise_multiplier: z, of count and sum together.
            expected_count: how many units a batch has on average, a public constant.

        Raises:
            FirstNormOutside: the first norm is not within the bounds.
            TooLittleCountNoise: the count alone spends what both may spend together.
        """
        if not self.smallest <= clipping_norm <= self.largest:
            raise FirstNormOutside(clipping_norm, self)
        count_noise = self.count_noise_for(expected_count)
        if noise_multiplier >= 2 * count_noise:
            raise TooLittleCountNoise(noise_multiplier, count_noise)

    def next_norm(self, clipping_norm: float, *, noisy_fraction: float) -> float:
        r"""Return the clipping norm of the next step, within the bounds.

        .. math:: C \leftarrow C \cdot \exp(-\eta (\tilde b - \gamma))

        Args:
            clipping_norm: C, in gradient units.
            noisy_fraction: the noised share of gradients within C; noise may take it
                below 0 or above 1.

        Returns:
            In gradient units, from `smallest` to `largest`; a function of what was released.

        Source:
            Andrew et al. 2021, Algorithm 1, the geometric update.
        """
        exponent = -self.rate * (noisy_fraction - self.target_quantile)
        moved = clipping_norm * math.exp(min(exponent, LARGEST_EXPONENT))
        return min(max(moved, self.smallest), self.largest)


def _need_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ImpossibleEvent(name, value, "above 0 and finite")
