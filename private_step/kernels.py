"""The inner loops of noise, which Numba compiles at their first use; no compiler is needed.

Each loop is so plain that LLVM makes vector instructions of it: polynomials in the place of calls,
arithmetic in the place of branches. They are only worth their compilation for large models.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from private_step.compiling import Loop, compiled_with

Floats: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.int32]

F = np.float32
I32 = np.int32

POSITIVE = I32(0x7FFFFFFF)
MANTISSA = I32(23)  # bits of a float32's mantissa
ROOT_HALF = I32(0x3F3504F3)  # the bits of the square root of one half
WORD = I32(31)
ONE_BIT = I32(1)
QUARTER = I32(30)  # a quarter turn is 2^30
EIGHTH_TURN = I32(1 << 29)
HALF, ONE, TWO = F(0.5), F(1.0), F(2.0)
LOW = F(2.0**-31)
QUARTER_TURN = F(np.pi / 2 / 2**30)
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.12194440e-4)
# log(1 + x) - x + x^2 / 2, over x^3: Cephes' logf (Moshier), from the highest power on
LOG = tuple(
    F(c)
    for c in (
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
)
L0, L1, L2, L3, L4, L5, L6, L7, L8 = LOG
# sine and cosine on an eighth of a turn to either side: Cephes' sinf and cosf
S0, S1, S2 = F(-1.6666654611e-1), F(8.3321608736e-3), F(-1.9515295891e-4)
C0, C1, C2 = F(4.166664568298827e-2), F(-1.388731625493765e-3), F(2.443315711809948e-5)


def radii(high: Words, low: Words, radius: Floats, exponent: Words, scale: np.float32) -> None:
    """Write sqrt(scale ln u) for u = (high + low 2^-31) 2^-31, both of 31 bits; scale < 0.

    `exponent` is room to work in; all have one length.
    """
    count = high.shape[0]
    bits = radius.view(np.int32)
    for i in range(count):
        radius[i] = F(high[i] & POSITIVE) + (F(low[i] & POSITIVE) + HALF) * LOW
    for i in range(count):  # u = m 2^k, with m between the roots of one half and of two
        k = (bits[i] - ROOT_HALF) >> MANTISSA
        exponent[i] = k - WORD
        bits[i] -= k << MANTISSA
    for i in range(count):
        e = F(exponent[i])
        x = radius[i] - ONE
        y = (((((((L0 * x + L1) * x + L2) * x + L3) * x + L4) * x + L5) * x + L6) * x + L7) * x + L8
        y = y * x * x * x + e * LN2_LOW - HALF * x * x
        radius[i] = np.sqrt(scale * (x + y + e * LN2_HIGH))


def directions(turn: Words, cosine: Floats, sine: Floats) -> None:
    """Write the cosine and the sine of turn 2^-32 whole turns."""
    for i in range(turn.shape[0]):
        quarter = (turn[i] + EIGHTH_TURN) >> QUARTER
        a = F(turn[i] - (quarter << QUARTER)) * QUARTER_TURN
        z = a * a
        s = a + a * z * (S0 + z * (S1 + z * S2))
        c = ONE - HALF * z + z * z * (C0 + z * (C1 + z * C2))
        odd = F(quarter & ONE_BIT)  # whether the two change places
        cosine[i] = (c + odd * (s - c)) * (
            ONE - TWO * F(((quarter + ONE_BIT) >> ONE_BIT) & ONE_BIT)
        )
        sine[i] = (s + odd * (c - s)) * (ONE - TWO * F((quarter >> ONE_BIT) & ONE_BIT))


def noised(
    total: Floats, radius: Floats, direction: Floats, mean: Floats, scales: tuple[float, float]
) -> None:
    """Write round(total scales[0] + radius direction) scales[1], rounded in float64."""
    for i in range(total.shape[0]):
        value = np.float64(total[i]) * scales[0] + np.float64(radius[i] * direction[i])
        mean[i] = F(np.rint(value) * scales[1])


def noised_block(
    words: NDArray[np.int32],
    total: Floats,
    mean: Floats,
    rooms: tuple[Floats, Floats, Floats, Words],
    scales: tuple[float, float, np.float32],
) -> None:
    """Write the noised mean of one block, a piece at a time that stays in the nearest cache.

    Args:
        words: of the key stream, shape (3, pairs): two for the radius of a pair, one for its angle.
        total: what is noised, shape (2 pairs,), or one less.
        mean: where it goes, likewise.
        rooms: to work in, all of one length.
        scales: of `noised`, and of `radii`.
    """
    radius, cosine, sine, exponent = rooms
    pairs, count, at_once = words.shape[1], total.shape[0], radius.shape[0]
    for start in range(0, pairs, at_once):
        n = min(at_once, pairs - start)
        end = start + n
        radii(words[0, start:end], words[1, start:end], radius[:n], exponent[:n], scales[2])
        directions(words[2, start:end], cosine[:n], sine[:n])
        noised(total[start:end], radius[:n], cosine[:n], mean[start:end], scales[:2])
        there = slice(pairs + start, min(pairs + end, count))  # of a pair's other value
        noised(total[there], radius[:n], sine[:n], mean[there], scales[:2])


@cache
def compiled() -> Loop | None:
    """Compile `noised_block`, once in a process; None where Numba is not installed."""
    return compiled_with(noised_block, radii, directions, noised)
