"""Values as int8 steps of a scale that SCALED of them share, rounded up or down at random.

`common.wire_formats` says what the bytes are and how far a value can be off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from common.randomness import RandomStream

Float32: TypeAlias = NDArray[np.float32]

SCALED = 256  # values that share a scale
STEPS = 127  # -127 to 127: -128 is never written
SMALLEST_SCALE = np.float32(2.0**-100)  # of smaller values only zero or one step is left

_FRACTION_BITS = 16  # of a value over its scale, before it is rounded by as many random bits
_LESS = 1 - 2.0**-22  # keeps rounding from carrying the largest value above 127
_LARGEST = float(np.finfo(np.float32).max)
_WITHOUT_SIGN = np.int32(0x7FFFFFFF)
_SPARE = 16  # bytes of room that a stream asks for beyond what it writes


class Int8Encoder:
    """Writes blocks of up to `longest` values; its memory is that of one."""

    def __init__(self, rounding: RandomStream, longest: int) -> None:
        """Round by `rounding`, 2 bytes for each value in order."""
        self._rounding = rounding
        self._quotients = np.empty(longest, dtype=np.float32)
        self._fixed = np.empty(longest, dtype=np.int32)
        self._random = bytearray(2 * longest + _SPARE)

    def encode(self, block: Float32, scales: Float32, steps: NDArray[np.int8]) -> bool:
        """Write a block's scales and steps; return whether it fits, else nothing is written."""
        found = _least_scales(block, self._fixed[: block.size])
        if not are_possible(found).all():
            return False
        scales[:] = found
        self._round(block, found, steps)
        return True

    def _round(self, block: Float32, scales: Float32, steps: NDArray[np.int8]) -> None:
        """Write floor(x / s + u), u uniform in [0, 1), in fixed point."""
        quotients, fixed = self._quotients[: block.size], self._fixed[: block.size]
        inverses = (2.0**_FRACTION_BITS * _LESS / scales.astype(np.float64)).astype(np.float32)
        quotients[:] = block
        multiply(quotients, inverses)
        np.rint(quotients, out=quotients)
        fixed[:] = quotients
        fixed += np.frombuffer(self._rounding.read_into(self._random, 2 * block.size), "<u2")
        fixed >>= _FRACTION_BITS
        steps[:] = fixed


def are_possible(scales: Float32) -> NDArray[np.bool_]:
    """Return which scales may be written: all of their steps are finite, and they are not small."""
    with np.errstate(invalid="ignore"):  # a NaN that signals is no more possible than another
        return (scales >= SMALLEST_SCALE) & (scales.astype(np.float64) * STEPS <= _LARGEST)


def multiply(values: Float32, factors: Float32) -> None:
    """Multiply every SCALED values by their factor, in place."""
    whole = values.size // SCALED
    rows = values[: whole * SCALED].reshape(-1, SCALED)
    rows *= factors[:whole, np.newaxis]
    if values.size % SCALED:
        values[whole * SCALED :] *= factors[whole]


def _least_scales(block: Float32, room: NDArray[np.int32]) -> Float32:
    r"""Return the least scales s with :math:`127 s \ge |x|`, at least SMALLEST_SCALE; or NaN."""
    largest = _magnitudes(block, room).astype(np.float64)
    scales = (largest / STEPS).astype(np.float32)
    is_short = scales.astype(np.float64) * STEPS < largest  # exact: 24 bits times 7
    scales[is_short] = np.nextafter(scales[is_short], np.float32(np.inf))
    return np.maximum(scales, SMALLEST_SCALE)


def _magnitudes(block: Float32, room: NDArray[np.int32]) -> Float32:
    """Return the largest magnitude of every SCALED values; NaN where one is NaN.

    Without their sign floats are ordered as their bits are, NaN last; numpy compares bits faster.
    """
    np.bitwise_and(block.view(np.int32), _WITHOUT_SIGN, out=room)
    whole = block.size // SCALED * SCALED
    found: NDArray[np.int32] = room[:whole].reshape(-1, SCALED).max(axis=1)
    if whole < block.size:
        found = np.append(found, room[whole:].max())
    return found.view(np.float32)
