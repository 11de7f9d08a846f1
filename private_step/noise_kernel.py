"""The noise of a block of values, as a kernel: Box and Muller's pairs, polynomials for calls.

Polynomials: Cephes' logf, sinf and cosf (Moshier), from the highest power on.
"""

from __future__ import annotations

import math

from private_step.kernel import Kernel
from private_step.keystream import COLUMNS, CONTEXT, MADE, WRITTEN, ZEROS_AT_ONCE
from private_step.lanes import F32, F64, I32, I64, Array, Lanes

POSITIVE = 0x7FFFFFFF
MANTISSA = 23  # bits of a float32's mantissa
ROOT_HALF = 0x3F3504F3  # the bits of the square root of one half
WORD = 31  # bits of a word without its sign
WORDS, WORD_BYTES = 3, 4  # for a pair of values
ADDRESS_BYTES = 8
QUARTER = 30  # a quarter turn is 2^30
QUARTER_TURN = math.pi / 2 / 2**30
SIGN = 30  # by so many bits the second bit becomes a float32's sign
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
# log(1 + x) - x + x^2 / 2, over x^3
LOG = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
# sine and cosine on an eighth of a turn to either side
SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)


def polynomial(x: Lanes, factors: tuple[float, ...]) -> Lanes:
    """Return the polynomial of at least two factors, those of the highest power first."""
    found = x * factors[0] + factors[1]
    for factor in factors[2:]:
        found = found * x + factor
    return found


def radius(high: Lanes, low: Lanes, scale: Lanes) -> Lanes:
    """Return sqrt(scale ln u) for u = (high + low 2^-31) 2^-31, both of 31 bits; scale < 0."""
    wide = (high & POSITIVE).single() + ((low & POSITIVE).single() + 0.5) * 2.0**-31
    bits = wide.bits()
    power = (bits - ROOT_HALF) >> MANTISSA  # u = m 2^k, with m between the roots of 1/2 and 2
    x = (bits - (power << MANTISSA)).of_bits() - 1.0
    k = (power - WORD).single()
    y = polynomial(x, LOG) * x * x * x + k * LN2_LOW - x * x * 0.5
    return (scale * (x + y + k * LN2_HIGH)).at_least(0.0).sqrt()


def direction(turn: Lanes) -> tuple[Lanes, Lanes]:
    """Return the cosine and the sine of turn 2^-32 whole turns."""
    quarter = (turn + (1 << (QUARTER - 1))) >> QUARTER
    a = (turn - (quarter << QUARTER)).single() * QUARTER_TURN
    z = a * a
    sine = a + a * z * polynomial(z, SINE)
    cosine = 1.0 - z * 0.5 + z * z * polynomial(z, COSINE)
    odd = (quarter & 1) > 0  # whether the two change places
    along, across = odd.where(sine, cosine), odd.where(cosine, sine)
    signs = ((quarter + 1) & 2) << SIGN, (quarter & 2) << SIGN
    return (along.bits() ^ signs[0]).of_bits(), (across.bits() ^ signs[1]).of_bits()


def noised(total: Lanes, noise: Lanes, scales: tuple[Lanes, Lanes]) -> Lanes:
    """Return round(total scales[0] + noise) scales[1].

    The sum is rounded once, to float32, from what it is exactly: whatever is done to it then is
    post-processing.
    """
    return total.fused(scales[0], noise).rint() * scales[1]


class Noise(Kernel):
    """The kernel; a part is some blocks, of which the last may be shorter.

    Arguments: how many values there are; how many a block has (an even number); how many blocks
    a part has; what is noised; where it goes; the three scales of `noised` and of `radius`; words
    of the key stream, three for each pair, those of a kind together, room for a block in each part.
    What makes them: the address of OpenSSL's EVP_EncryptUpdate, the rows of `KeyStreams.table`,
    ZEROS_AT_ONCE zeros. No address: a part is one block, and its words are there already.
    """

    def __init__(self) -> None:
        """Write the code."""
        super().__init__("noise", [I64, I64, I64, F32, F32, F64, F64, F64, I32, I64, I64, I64])
        self._values, self._block, self._share, self._total, self._mean = self.arguments[:5]
        self._inner, self._outer, self._spread, self._words = self.arguments[5:9]
        self._update, self._table, self._zeros = self.arguments[9:]
        self.each_part(self._all_blocks)

    def _all_blocks(self, part: Lanes) -> None:
        words = self._words.from_((self._block >> 1) * WORDS * part)
        first = part * self._share * self._block
        values = (self._values - first).at_most(self._share * self._block)

        def one(number: Lanes, _: list[Lanes]) -> tuple[()]:
            done = number * self._block
            left = (values - done).at_most(self._block)
            self.when(left > 0, lambda: self._one_block(part, words, first + done, left))
            return ()

        self.folded(self._share, one)

    def _one_block(self, part: Lanes, words: Array, start: Lanes, count: Lanes) -> None:
        pairs = (count + 1) >> 1
        self.when(self._update > 0, lambda: self._fill(part, words, pairs * (WORDS * WORD_BYTES)))
        before, after = self._total.from_(start), self._mean.from_(start)

        def drawn(place: Lanes, width: int) -> tuple[Lanes, Lanes]:
            kinds = [words.load(place + pairs * kind, width) for kind in range(WORDS)]
            length = radius(kinds[0], kinds[1], self._spread.single().in_all(width))
            along, across = direction(kinds[2])
            return length * along, length * across

        def add(place: Lanes, noise: Lanes, width: int) -> None:
            scales = self._inner.single().in_all(width), self._outer.single().in_all(width)
            after.store(place, noised(before.load(place, width), noise, scales))

        def of_pairs(place: Lanes, width: int) -> None:
            for there, noise in zip((place, place + pairs), drawn(place, width), strict=True):
                add(there, noise, width)

        def of_last() -> None:
            add(pairs - 1, drawn(pairs - 1, 1)[0], 1)

        self.each(count - pairs, of_pairs)
        self.when(count < pairs * 2, of_last)  # a pair of which one value is asked for

    def _fill(self, part: Lanes, words: Array, count: Lanes) -> None:
        """Write the next `count` bytes of the part's key stream, and count those made."""
        row = self._table + part * (COLUMNS * ADDRESS_BYTES)
        context, made = (self.array(row + ADDRESS_BYTES * i, I64) for i in (CONTEXT, MADE))
        nothing = part * 0

        def piece(number: Lanes, _: list[Lanes]) -> tuple[()]:
            done = number * ZEROS_AT_ONCE
            size = (count - done).at_most(ZEROS_AT_ONCE)
            where = words.address() + done, row + ADDRESS_BYTES * WRITTEN
            good = self.call(self._update, context.load(nothing, 1), *where, self._zeros, size)
            found = made.load(nothing, 1) + (good > 0).where(size, nothing)
            made.store(nothing, found)
            return ()

        self.folded((count + (ZEROS_AT_ONCE - 1)) >> ZEROS_AT_ONCE.bit_length() - 1, piece)
