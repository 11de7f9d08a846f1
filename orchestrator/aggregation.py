r"""Federated averaging in integers, so that the order of arrival cannot change a bit.

A value x of gateway g enters the sum as the integer

.. math:: s_g = \mathrm{round}(w_g / T \cdot c_g \cdot x \cdot 2^{40})

with public integer weights w_g and T, their sum over everyone invited, and a factor c_g of at most
1 that scales down an update whose norm is above the round's bound (`orchestrator.norms`). The mean
over the members M that answered, whose weights add up to W, is

.. math:: 2^{-40} \cdot \sum_{g \in M} s_g \cdot T / W

with an error of at most :math:`2^{-41} \cdot |M| \cdot T / W` and float64's own.

A difference is refused unless :math:`|x| < 2^{11}`. As the shares w_g / T add up to at most 1, the
sum then stays near :math:`2^{51}` steps: no int64 overflows, however many gateways there are.

Source:
    McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized
    Data", Algorithm 1; the sum in fixed point as in secure aggregation.
"""

from __future__ import annotations

from concurrent.futures import wait
from typing import TYPE_CHECKING, Protocol

import numpy as np

from common.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

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


def check_range(values: NDArray[np.float32], layout: Layout, begin: int = 0) -> None:
    """Raise OutOfRange, naming the tensor, unless all are finite and below LIMIT in size.

    They are the layout's values from the place `begin` on.
    """
    for block in blocks(values.size):
        fits = np.abs(values[block]) < LIMIT
        if not fits.all():
            raise OutOfRange(layout.tensor_at(begin + block.start + int(np.argmin(fits))))


class Values(Protocol):
    """An update's values, given out block by block."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read(self, block: slice) -> NDArray[np.float32]:
        """Return those of `block`, which the next call may overwrite."""


class Accumulator:
    """The running sum of one round, in steps of 2^-40; one thread at a time may use it.

    Its array holds, of every value, the sum of the bits of anchored numbers, without the anchors'
    own bits: int64 wraps round, so that they may be taken off all at once.
    """

    def __init__(
        self,
        size: int,
        total_weight: int,
        *,
        memory: NDArray[np.int64] | None = None,
        helpers: Executor | None = None,
    ) -> None:
        """Start empty, for `size` values and the summed weight T of everyone invited.

        `memory` of an earlier round's sum is used again, whatever it holds: fresh memory costs
        more than the sum. `helpers` are threads that add parts of an update side by side.
        """
        fits = memory is not None and memory.shape == (size,)
        self.memory = memory if memory is not None and fits else np.empty(size, dtype=np.int64)
        self._total_weight = total_weight
        self._weights: dict[GatewayId, int] = {}
        self._helpers = helpers

    @property
    def members(self) -> frozenset[GatewayId]:
        """Whose updates are in the sum."""
        return frozenset(self._weights)

    def add(self, gateway: GatewayId, values: Values, weight: int, factor: float = 1.0) -> None:
        """Add `factor` times an update that was checked for its range; a gateway is added once.

        A factor of at most 1 scales the update down; its weight in the mean stays.
        Where `values` fails in the middle, the sum is of no use any more, and `members` has not
        got the gateway.
        """
        if gateway in self._weights or values.size != self.memory.size:
            msg = f"{gateway!r} is in the sum already, or has {values.size} values"
            raise ValueError(msg)
        share = weight / self._total_weight * factor
        every = list(blocks(self.memory.size))
        if self._helpers is None:
            self._add(every, values, share)
        else:
            half = len(every) // 2
            rest = self._helpers.submit(self._add, every[half:], values, share)
            try:
                self._add(every[:half], values, share)
            finally:
                wait([rest])
            rest.result()
        self._weights[gateway] = weight

    def _add(self, some: list[slice], values: Values, share: float) -> None:
        room, is_first = np.empty(BLOCK), not self._weights
        for block in some:
            bits = anchored(values.read(block), share, room)
            if is_first:
                self.memory[block] = bits
            else:
                self.memory[block] += bits

    def mean(self, block: slice) -> NDArray[np.float64]:
        """Return the weighted mean of the members' updates, of some values."""
        anchors = np.array(len(self._weights) * int(_ANCHOR_BITS) % 2**64, dtype=np.uint64)
        steps = self.memory[block] - anchors.view(np.int64)
        factor = self._total_weight / sum(self._weights.values()) * STEP
        return np.multiply(steps, factor, dtype=np.float64)


def anchored(
    values: NDArray[np.float32], share: float, room: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return round(share * values / STEP), half to even, plus the anchor's bits; made in `room`.

    |share * values| must be below LIMIT.
    """
    shifted = room[: values.size]
    np.copyto(shifted, values)
    shifted *= share
    shifted += _ANCHOR
    return shifted.view(np.int64)
