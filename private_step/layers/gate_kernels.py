"""All steps of an LSTM, forward and back, as kernels that take some records through them.

Records do not touch each other, so each thread goes its own way through all steps, without a call
or a meeting between them: products of a few records are too small for that. A product's results
stay in registers until the gates are made of them.

Shapes: T steps, R records, H hidden values. All arrays are of float32 and without gaps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice

from private_step.kernel import Kernel
from private_step.lanes import F32, I64, Array, Lanes
from private_step.noise_kernel import LN2_HIGH, LN2_LOW, MANTISSA, polynomial

LARGEST = 87.0  # of an exponent, to either side
PER_LN2 = 1 / math.log(2)
BIAS = 127  # of a float32's exponent
SMALL = 0.625  # up to here tanh is a polynomial
# (exp(x) - 1 - x) / x^2 and (tanh(x) - x) / x^3: Cephes' expf and tanhf (Moshier)
EXP = (
    *(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3),
    *(4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
)
TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)


def exponential(x: Lanes) -> Lanes:
    """Return exp(x), of x between -87 and 87; of others what the nearer of these has."""
    value = x.at_least(-LARGEST).at_most(LARGEST)
    k = (value * PER_LN2 + 0.5).floor()
    r = value - k * LN2_HIGH - k * LN2_LOW
    found = polynomial(r, EXP) * r * r + r + 1.0
    return found * ((k.whole() + BIAS) << MANTISSA).of_bits()


def sigmoid(x: Lanes) -> Lanes:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (exponential(-x) + 1.0)


def hyperbolic_tangent(x: Lanes) -> Lanes:
    """Return tanh(x)."""
    z = x * x
    near = polynomial(z, TANH) * z * x + x
    far = 1.0 - 2.0 / (exponential(x * 2.0) + 1.0)
    return (z < SMALL * SMALL).where(near, far)


def forward(sums: Iterable[Lanes], before: Lanes) -> tuple[list[Lanes], Lanes, Lanes, Lanes]:
    """Return the gates, the cell, its tanh, the hidden state: of the sums and the cell before."""
    raw_into, raw_forget, raw_new, raw_out = sums
    into, forget, out = sigmoid(raw_into), sigmoid(raw_forget), sigmoid(raw_out)
    new = hyperbolic_tangent(raw_new)
    cell = forget * before + into * new
    squashed = hyperbolic_tangent(cell)
    return [into, forget, new, out], cell, squashed, out * squashed


def backward(
    gates: Iterable[Lanes], cells: tuple[Lanes, Lanes], above: tuple[Lanes, Lanes]
) -> tuple[list[Lanes], Lanes]:
    """Return the gradients of the gates' sums, and that of the cell before.

    Args:
        gates: what came out of them.
        cells: the cell before, and the tanh of the one after.
        above: the gradients of the hidden state and of the cell after.
    """
    into, forget, new, out = gates
    before, squashed = cells
    through = above[0] * out
    of_cell = above[1] + through * (1.0 - squashed * squashed)
    gradients = [
        of_cell * new * into * (1.0 - into),
        of_cell * before * forget * (1.0 - forget),
        of_cell * into * (1.0 - new * new),
        through * squashed * (1.0 - out),
    ]
    return gradients, of_cell * forget


def added(sums: list[Lanes], values: list[Lanes], factors: list[Lanes]) -> list[Lanes]:
    """Return each sum and its value times its factor."""
    return [a + b * c for a, b, c in zip(sums, values, factors, strict=True)]


@dataclass(frozen=True)
class Tile:
    """How much of a product is made at a time: its sums, times four gates, stay in registers."""

    records: int
    widths: tuple[int, ...]  # of vectors, the widest first, 1 the last

    def of(self, part: Lanes, records: Lanes) -> list[Lanes]:
        """Return the records of a part; where there are no more, the last one once again."""
        first = part * self.records
        return [(first + each).at_most(records - 1) for each in range(self.records)]


WIDE = Tile(4, (16, 8, 1))  # 32 registers of 16 values
NARROW = Tile(2, (8, 1))  # 16 registers of 8, or 32 of 4


class Forward(Kernel):
    """All steps forward; a part is a tile's records.

    Arguments: the weights of the state, transposed, (H, 4H); the gates of all steps, (T, R, 4H),
    which hold what else goes into them; the cells, (T + 1, R, H), and their tanh, (T, R, H); what
    is read in each step, (T + 1, R, D + H), of which the last H are the hidden state before it;
    T; R; H; D + H. The cells and the state before the first step are given.
    """

    def __init__(self, tile: Tile) -> None:
        """Write the code."""
        super().__init__("forward", [F32, F32, F32, F32, F32, I64, I64, I64, I64])
        self._weights, self._gates, self._cells, self._tanhs, self._read = self.arguments[:5]
        self._steps, self._records, self._width, self._wide = self.arguments[5:]
        self._tile = tile
        self.each_part(self._all_steps)

    def _all_steps(self, part: Lanes) -> None:
        mine = self._tile.of(part, self._records)

        def one_step(t: Lanes, _: list[Lanes]) -> tuple[()]:
            here = [t * self._records + each for each in mine]
            self.each(self._width, partial(self._values, here), self._tile.widths)
            return ()

        self.folded(self._steps, one_step)

    def _values(self, here: list[Lanes], place: Lanes, lanes: int) -> None:
        """Write some values of the tile's records, which stand `here` among those of all steps."""
        at = [place + self._width * gate for gate in range(4)]
        own = [self._gates.from_(each * self._width * 4) for each in here]
        given = [each.load(gate, lanes) for each in own for gate in at]
        sums = iter(self.folded(self._width, partial(self._multiply, here, at, lanes), given))
        for each, gated in zip(here, own, strict=True):
            there, after = each * self._width + place, each + self._records
            gates, cell, squashed, hidden = forward(islice(sums, 4), self._cells.load(there, lanes))
            for gate, values in zip(at, gates, strict=True):
                gated.store(gate, values)
            self._cells.store(after * self._width + place, cell)
            self._tanhs.store(there, squashed)
            self._state(after).store(place, hidden)

    def _multiply(
        self, here: list[Lanes], at: list[Lanes], lanes: int, k: Lanes, sums: list[Lanes]
    ) -> list[Lanes]:
        """Add to each record's four sums what the k-th value of its state gives."""
        factors = [self._weights.load(k * self._width * 4 + each, lanes) for each in at]
        values = [self._state(each).load(k, 1).in_all(lanes) for each in here for _ in at]
        return added(sums, values, factors * len(here))

    def _state(self, place: Lanes) -> Array:
        found: Array = self._read.from_(place * self._wide + (self._wide - self._width))
        return found


class Backward(Kernel):
    """All steps back; a part is a tile's records.

    Arguments: the weights of the state, (4H, H); the gradients of the hidden states from above,
    (T, R, H); the gates, (T, R, 4H); the cells, (T + 1, R, H), and their tanh, (T, R, H); where
    the gradients of the gates go, (T, R, 4H); the gradient of the last cell, (R, H), which is
    carried back in its place; T; R; H.
    """

    def __init__(self, tile: Tile) -> None:
        """Write the code."""
        super().__init__("backward", [F32, F32, F32, F32, F32, F32, F32, I64, I64, I64])
        self._weights, self._above, self._gates, self._cells, self._tanhs = self.arguments[:5]
        self._of_gates, self._carried, self._steps, self._records, self._width = self.arguments[5:]
        self._tile = tile
        self.each_part(self._all_steps)

    def _all_steps(self, part: Lanes) -> None:
        mine = self._tile.of(part, self._records)

        def one_step(done: Lanes, _: list[Lanes]) -> tuple[()]:
            start = (self._steps - 1 - done) * self._records
            # nothing comes from behind the last step
            terms = (done > 0).where(self._width, self._width * 0)
            values = partial(self._values, mine, start, terms)
            self.each(self._width, values, self._tile.widths)
            return ()

        self.folded(self._steps, one_step)

    def _values(
        self, mine: list[Lanes], start: Lanes, terms: Lanes, place: Lanes, lanes: int
    ) -> None:
        """Write some values of the tile's records in the step that begins at `start`."""
        at = [place + self._width * gate for gate in range(4)]
        nothing = [self.zeros(lanes) for _ in range(4 * len(mine))]
        after = [start + self._records + each for each in mine]
        sums = iter(self.folded(terms, partial(self._multiply, after, place, lanes), nothing))
        found = []
        for record in mine:
            there, gated = self._places(start + record, place, self._gates)
            below = (next(sums) + next(sums)) + (next(sums) + next(sums))
            carry = self._carried.load(record * self._width + place, lanes)
            upper = below + self._above.load(there, lanes), carry
            known = self._cells.load(there, lanes), self._tanhs.load(there, lanes)
            found.append(backward([gated.load(gate, lanes) for gate in at], known, upper))
        # only now: a record that stands twice in the tile reads what it overwrites
        for record, (gradients, carry) in zip(mine, found, strict=True):
            _, into = self._places(start + record, place, self._of_gates)
            for gate, gradient in zip(at, gradients, strict=True):
                into.store(gate, gradient)
            self._carried.store(record * self._width + place, carry)

    def _multiply(
        self, after: list[Lanes], place: Lanes, lanes: int, k: Lanes, sums: list[Lanes]
    ) -> list[Lanes]:
        """Add to each record's four sums what the k-th values of the gates behind it give."""
        rows = [k + self._width * gate for gate in range(4)]
        factors = [self._weights.load(row * self._width + place, lanes) for row in rows]
        behind = [self._of_gates.from_(each * self._width * 4) for each in after]
        values = [each.load(row, 1).in_all(lanes) for each in behind for row in rows]
        return added(sums, values, factors * len(after))

    def _places(self, row: Lanes, place: Lanes, gates: Array) -> tuple[Lanes, Array]:
        return row * self._width + place, gates.from_(row * self._width * 4)
