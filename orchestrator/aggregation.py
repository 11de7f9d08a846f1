r"""Federated averaging in integers, so that the order of arrival cannot change a bit.

A value x of gateway g enters the sum as the integer

.. math:: s_g = \mathrm{round}(w_g / T \cdot x \cdot 2^{40})

with public integer weights w_g and T, their sum over everyone invited. The mean over the members
M that answered, whose weights add up to W, is

.. math:: 2^{-40} \cdot \sum_{g \in M} s_g \cdot T / W

with an error of at most :math:`2^{-41} \cdot |M| \cdot T / W` and float64's own.

A difference is refused unless :math:`|x| < 2^{11}`. As the shares w_g / T add up to at most 1, the
sum then stays near :math:`2^{51}` steps: no int64 overflows, however many gateways there are.

Source:
    McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", Algorithm 1; the sum in fixed point as in secure aggregation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from common.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from common.ids import GatewayId
    from common.weights import Layout

STEP = 2.0**-40
LIMIT = 2.0**11
BLOCK = 1 << 16  # values; what a block needs stays in the processor's cache

# In [2^12, 2^13) float64 has a last place of 2^-40, so the bits of x + 1.5 * 2^12 are those of
# 1.5 * 2^12 plus x in steps of 2^-40, rounded half to even.
_ANCHOR = np.float64(1.5 * 2**12)
_ANCHOR_BITS = _ANCHOR.view(np.int64)


class OutOfRange(RequestError):
    """A value of an update is too large for the sum."""

    def __init__(self, tensor: str) -> None:
        super().__init__(
            f"tensor {tensor!r} holds a difference of {LIMIT:g} or more: nothing of it was "
            "counted; lower the learning rate or check the data"
        )


def blocks(size: int) -> Iterator[slice]:
    """Yield slices that cover `size` values in order."""
    for start in range(0, size, BLOCK):
        yield slice(start, start + BLOCK)


def check_range(values: NDArray[np.float32], layout: Layout) -> None:
    """Raise OutOfRange, naming the tensor, unless every value is finite and below LIMIT in size."""
    for block in blocks(values.size):
        fits = np.abs(values[block]) < LIMIT
        if not fits.all():
            raise OutOfRange(layout.tensor_at(block.start + int(np.argmin(fits))))


def fixed_point(values: NDArray[np.float32], share: float) -> NDArray[np.int64]:
    """Return round(share * values / STEP), half to even; |share * values| must be below LIMIT."""
    shifted = np.multiply(values, share, dtype=np.float64)
    shifted += _ANCHOR
    steps = shifted.view(np.int64)
    steps -= _ANCHOR_BITS
    return steps


class Accumulator:
    """The running sum of one round, in steps of 2^-40; one thread at a time may use it."""

    def __init__(self, size: int, total_weight: int) -> None:
        """Start empty, for `size` values and the summed weight T of everyone invited."""
        self._sum = np.zeros(size, dtype=np.int64)
        self._total_weight = total_weight
        self._weights: dict[GatewayId, int] = {}

    @property
    def members(self) -> frozenset[GatewayId]:
        """Whose updates are in the sum."""
        return frozenset(self._weights)

    def add(self, gateway: GatewayId, values: NDArray[np.float32], weight: int) -> None:
        """Add an update, shape (size,), that `check_range` let pass; a gateway is added once."""
        if gateway in self._weights or values.shape != self._sum.shape:
            msg = f"{gateway!r} is in the sum already, or has shape {values.shape}"
            raise ValueError(msg)
        share = weight / self._total_weight
        for block in blocks(values.size):
            self._sum[block] += fixed_point(values[block], share)
        self._weights[gateway] = weight

    def mean(self) -> NDArray[np.float64]:
        """Return the weighted mean of the members' updates, shape (size,).

        The sum's memory becomes the mean's: nothing can be added afterwards.
        """
        factor = self._total_weight / sum(self._weights.values()) * STEP
        mean = self._sum.view(np.float64)
        for block in blocks(self._sum.size):
            mean[block] = self._sum[block].astype(np.float64) * factor
        self._sum = np.zeros(0, dtype=np.int64)
        return mean
