"""Squared norms of gradients by their Gram matrices, as kernels.

Shapes: U units, T rows each, of K values, float32 without gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from private_step.kernel import Kernel
from private_step.lanes import F32, F64, I64, Array, Lanes


@dataclass(frozen=True)
class Block:
    """How much is made at a time: its sums and the rows they are made of stay in registers."""

    rows: int  # by as many
    width: int  # of vectors


WIDTH = 16  # values of a row at once; two registers of 8 where they are narrower
WIDE = Block(4, 16)  # 32 registers of 16 values
NARROW = Block(3, 8)  # 16 registers of 8, or 32 of 4


class Gram(Kernel):
    """All inner products of each unit's rows, each made once; a part is a unit.

    Arguments: the rows, (U, T, K), each without gaps; how far it is from a unit to the next, and
    from a row to the next; their products, (U, S, S), of which those of row t with row s go to
    (t + o, s + o); T; K; S; o.
    """

    def __init__(self, block: Block) -> None:
        """Write the code."""
        super().__init__("gram", [F32, I64, I64, F32, I64, I64, I64, I64])
        self._rows, self._apart, self._stride, self._products = self.arguments[:4]
        self._count, self._width, self._side, self._offset = self.arguments[4:]
        self._block = block
        self.each_part(self._one_unit)

    def _one_unit(self, part: Lanes) -> None:
        rows = self._rows.from_(part * self._apart)
        corner = self._offset * (self._side + 1)
        products = self._products.from_(part * self._side * self._side + corner)
        more = self._block.rows - 1  # so that a block that is not whole counts too

        def of_ours(first: Lanes, _: list[Lanes]) -> tuple[()]:
            def of_theirs(second: Lanes, _: list[Lanes]) -> tuple[()]:
                self._one_block(rows, products, self._places(first), self._places(second))
                return ()

            self.strided(first + 1 + more, self._block.rows, of_theirs)
            return ()

        self.strided(self._count + more, self._block.rows, of_ours)

    def _places(self, first: Lanes) -> list[Lanes]:
        """Return the rows of a block; where there are no more, the last one once again."""
        return [(first + each).at_most(self._count - 1) for each in range(self._block.rows)]

    def _one_block(
        self, rows: Array, products: Array, ours: list[Lanes], theirs: list[Lanes]
    ) -> None:
        def multiply(width: int, place: Lanes, sums: list[Lanes]) -> list[Lanes]:
            mine, others = (
                [rows.load(each * self._stride + place, width) for each in side]
                for side in (ours, theirs)
            )
            factors = [(one, other) for one in mine for other in others]
            return [total + a * b for total, (a, b) in zip(sums, factors, strict=True)]

        width = self._block.width
        nothing = [self.zeros(width) for _ in ours for _ in theirs]
        reached, *sums = self.strided(self._width, width, partial(multiply, width), nothing)
        single = [each.total() for each in sums]
        _, *found = self.strided(self._width, 1, partial(multiply, 1), single, start=reached)
        values = iter(found)
        for one in ours:
            for other in theirs:
                value = next(values)
                products.store(one * self._side + other, value)
                products.store(other * self._side + one, value)


class Norms(Kernel):
    """Squared norms of whole gradients, of the Gram matrices of what was multiplied; part: unit.

    Arguments: the inner products of output gradients, G, (U, T, T); those of inputs, B, (U, S, S);
    where the norms go, (U,); T; S; how many of B along a diagonal, from (t, s) on, go with G's
    (t, s); what is added to each of their sums; by what part of the spread a norm is raised.
    """

    def __init__(self) -> None:
        """Write the code."""
        super().__init__("norms", [F32, F32, F32, I64, I64, I64, F64, F64])
        self._above, self._below, self._norms, self._count, self._side = self.arguments[:5]
        self._size, self._ones, self._raise = self.arguments[5:]
        self.each_part(self._one_unit)

    def _one_unit(self, part: Lanes) -> None:
        above = self._above.from_(part * self._count * self._count)
        below = self._below.from_(part * self._side * self._side)
        nothing = [self.zeros(WIDTH), self.zeros(1), self.zeros(1)]

        def one_row(t: Lanes, sums: list[Lanes]) -> list[Lanes]:
            def product(width: int, s: Lanes) -> Lanes:
                def add(shift: Lanes, total: list[Lanes]) -> list[Lanes]:
                    there = (t + shift) * self._side + s + shift
                    return [total[0] + below.load(there, width)]

                ones = self._ones.single().in_all(width)
                (found,) = self.folded(self._size, add, [ones])
                values: Lanes = above.load(t * self._count + s, width)
                return found * values

            def wide(s: Lanes, total: list[Lanes]) -> list[Lanes]:
                return [total[0] + product(WIDTH, s)]

            def single(s: Lanes, total: list[Lanes]) -> list[Lanes]:
                return [total[0] + product(1, s)]

            reached, row = self.strided(self._count, WIDTH, wide, [self.zeros(WIDTH)])
            _, rest = self.strided(self._count, 1, single, [self.zeros(1)], start=reached)
            length = product(1, t).at_least(0.0).sqrt()
            return [sums[0] + row, sums[1] + rest, sums[2] + length]

        rows, rest, spread = self.folded(self._count, one_row, nothing)
        squared = (rows.total() + rest).at_least(0.0)
        self._norms.store(part, squared + spread * spread * self._raise.single())
