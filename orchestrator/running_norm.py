r"""The L2 norm of an update, and whether its values can be added, seen piece by piece as they come.

.. math:: \lVert x \rVert_2 = \Bigl(\sum_b \sum_{i \in b} x_i^2\Bigr)^{1/2}

over blocks b of BLOCK values, counted from the first value on: not from where a piece begins, so
that the same bits come of any pieces. Within a block float64 squares, which are exact, are added by
numpy's pairwise sum, whose order is fixed; the blocks are added in their order. A machine of
another kind gets the same bits.

Of int8 a block's squared steps are added as integers and multiplied by the squared scale. That is
the norm of what the bytes stand for to one part in 2^24: a product that is read from them is
rounded to float32.

A sum of squares below LIMIT squared holds no value that is too large, infinite or not a number:
only a block with a larger one has its values looked at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from common.int8_blocks import SCALED
from common.wire_formats import WireFormat
from orchestrator.aggregation import LIMIT

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from common.int8_blocks import Float32

BLOCK = 1 << 14  # values
TOGETHER = 4  # blocks: with their squares they stay in the processor's cache


class RunningNorm:
    """Sees the elements of an update once, in order."""

    def __init__(self, wire_format: WireFormat, fit: Callable[[NDArray[Any]], bool]) -> None:
        """Expect elements of that format; `fit` says of some whether all can be added."""
        self._format = wire_format
        self._fit = fit
        self._rest: list[NDArray[Any]] = []  # of a block that a piece broke off
        self._held = 0  # values in it
        self._total = 0.0
        self._all_fit = True  # so far
        self._scales: list[Float32] = []
        self._squared_scales: NDArray[np.float64] | None = None
        self._rows = 0  # of SCALED steps that were seen

    def see_scales(self, scales: NDArray[Any]) -> None:
        """Take int8's scales, which come before the steps."""
        self._scales.append(scales.copy())

    def see(self, elements: NDArray[Any]) -> None:
        """Take the elements that come next, as they are written."""
        if self._held:
            taken, elements = _split(elements, BLOCK - self._held)
            self._keep(taken)
            if self._held < BLOCK:
                return
            whole, self._rest, self._held = np.concatenate(self._rest), [], 0
            self._add(whole)
        blocks, rest = _split(elements, elements.size - elements.size % BLOCK)
        for start in range(0, blocks.size, TOGETHER * BLOCK):
            self._add(blocks[start : start + TOGETHER * BLOCK])
        self._keep(rest)

    def value(self) -> float | None:
        """Return the norm of all that was seen, which was the last; None: not all of it fits."""
        if self._held:
            self._add(np.concatenate(self._rest))
            self._rest, self._held = [], 0
        return math.sqrt(self._total) if self._all_fit else None

    def _keep(self, elements: NDArray[Any]) -> None:
        if elements.size:
            self._rest.append(elements.copy())  # the piece is for somebody else soon
            self._held += elements.size

    def _add(self, elements: NDArray[Any]) -> None:
        """Add whole blocks, or the last one, which may be shorter."""
        if not self._all_fit:
            return
        sums = self._sums(elements)
        # int8's steps say more than their size; a sum that is not a number is below nothing
        are_small = self._format is not WireFormat.INT8 and all(s < LIMIT**2 for s in sums)
        self._all_fit = are_small or self._fit(elements)
        for of_block in sums:
            self._total += of_block

    def _sums(self, elements: NDArray[Any]) -> list[float]:
        """Return the sum of squares of each block."""
        match self._format:
            case WireFormat.FLOAT32:
                return _sums_of_squares(elements.view("<f4"))
            case WireFormat.BFLOAT16:
                bits = elements.astype(np.uint32)
                bits <<= np.uint32(16)
                return _sums_of_squares(bits.view(np.float32))
            case WireFormat.INT8:
                starts = range(0, elements.size, BLOCK)
                return [self._of_steps(elements[start : start + BLOCK]) for start in starts]

    def _of_steps(self, steps: NDArray[np.int8]) -> float:
        if self._squared_scales is None:
            self._squared_scales = np.square(np.concatenate(self._scales), dtype=np.float64)
            self._scales = []
        count = -(-steps.size // SCALED)
        rows = np.empty(count * SCALED, dtype=np.float32)
        rows[steps.size :] = 0.0
        rows[: steps.size] = steps
        np.multiply(rows, rows, out=rows)
        # below 2^24, so that float32 holds each sum exactly in any order
        squares = np.add.reduce(rows.reshape(count, SCALED), axis=1, dtype=np.float32)
        scales = self._squared_scales[self._rows : self._rows + count]
        self._rows += count
        return float(np.add.reduce(squares * scales))


def _sums_of_squares(values: Float32) -> list[float]:
    """Return the sum of each BLOCK; its memory is nobody's for long: uploads wait side by side."""
    with np.errstate(invalid="ignore"):  # of what is not a number
        wide = values.astype(np.float64)
        np.multiply(wide, wide, out=wide)
    rows = wide.reshape(-1, min(BLOCK, wide.size))
    return [float(of_block) for of_block in np.add.reduce(rows, axis=1)]


def _split(elements: NDArray[Any], place: int) -> tuple[NDArray[Any], NDArray[Any]]:
    return elements[:place], elements[place:]
