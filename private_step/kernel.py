"""Functions of machine code, written by calling Python once: threads, loops, conditions, calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from private_step.lanes import F32, F64, I32, I64, Array, Lanes

WIDTHS = (16, 8, 1)  # values at once; the narrower ones are for what is left of a row


class Kernel:
    """The code of one function `void (int64 *)`, which several threads may run at once.

    Of what it is given the first value counts the parts that were begun, the second says how many
    there are; the rest are arguments: addresses, whole numbers, the bits of float64 values.
    """

    def __init__(self, name: str, kinds: Sequence[Any]) -> None:
        """Begin a kernel with arguments of these kinds: F32, I32 (arrays), I64, F64 (values)."""
        self.module = ir.Module(name)
        given = ir.FunctionType(ir.VoidType(), [ir.PointerType()])
        self._function = ir.Function(self.module, given, name)
        self.builder = ir.IRBuilder(self._function.append_basic_block())
        self._given = self._function.args[0]
        self.arguments: list[Any] = [self._argument(2 + i, kind) for i, kind in enumerate(kinds)]

    def each_part(self, body: Callable[[Lanes], None]) -> None:
        """Let threads take parts as they come, and end the kernel."""
        count = Lanes(self.builder, self._value(1))
        ticket, work, end = (self._function.append_basic_block() for _ in range(3))
        self.builder.branch(ticket)
        self.builder.position_at_end(ticket)
        one = ir.Constant(I64, 1)
        part = Lanes(self.builder, self.builder.atomic_rmw("add", self._given, one, "monotonic"))
        self.builder.cbranch((part < count).value, work, end)
        self.builder.position_at_end(work)
        body(part)
        self.builder.branch(ticket)
        self.builder.position_at_end(end)
        self.builder.ret_void()

    def each(
        self, count: Lanes, body: Callable[[Lanes, int], None], widths: Sequence[int] = WIDTHS
    ) -> None:
        """Run over places from 0 to `count`, as many at once as there still are."""
        place = None
        for width in widths:

            def of_width(here: Lanes, _: list[Lanes], width: int = width) -> tuple[()]:
                body(here, width)
                return ()

            place = self.strided(count, width, of_width, start=place)[0]

    def folded(
        self,
        count: Lanes,
        body: Callable[[Lanes, list[Lanes]], Sequence[Lanes]],
        starts: Sequence[Lanes] = (),
    ) -> list[Lanes]:
        """Run over places from 0 to `count` one by one; return what became of `starts`.

        `body` is given a place and the values so far, and returns the next ones.
        """
        return self.strided(count, 1, body, starts)[1:]

    def strided(
        self,
        count: Lanes,
        width: int,
        body: Callable[[Lanes, list[Lanes]], Sequence[Lanes]],
        starts: Sequence[Lanes] = (),
        *,
        start: Lanes | None = None,
    ) -> list[Lanes]:
        """Run over every `width`-th place, as long as there are so many before `count`.

        Args:
            count: where places end.
            width: from one to the next.
            body: is given a place and the values so far, and returns the next ones.
            starts: the values at first.
            start: the first place; None: 0.

        Returns:
            The first place that was not reached, and what became of `starts`.
        """
        before = self.builder.block
        head, work, end = (self._function.append_basic_block() for _ in range(3))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        firsts = [start or Lanes(self.builder, ir.Constant(I64, 0)), *starts]
        carried = [self.builder.phi(each.value.type) for each in firsts]
        for phi, first in zip(carried, firsts, strict=True):
            phi.add_incoming(first.value, before)
        place, *values = (Lanes(self.builder, phi) for phi in carried)
        following = place + width
        self.builder.cbranch((count < following).value, end, work)
        self.builder.position_at_end(work)
        found = [following, *body(place, values)]
        for phi, each in zip(carried, found, strict=True):
            phi.add_incoming(each.value, self.builder.block)
        self.builder.branch(head)
        self.builder.position_at_end(end)
        return [place, *values]

    def array(self, address: Lanes, kind: Any) -> Array:
        """Return what stands at an address."""
        pointer = self.builder.inttoptr(address.value, ir.PointerType())
        return Array(self.builder, pointer, kind)

    def call(self, function: Lanes, *arguments: Lanes) -> Lanes:
        """Call a C function by its address; addresses and whole numbers go in, an int comes out."""
        kind = ir.FunctionType(I32, [I64] * len(arguments))
        pointer = self.builder.inttoptr(function.value, kind.as_pointer())
        given = [each.value for each in arguments]
        return Lanes(self.builder, self.builder.call(pointer, given))

    def zeros(self, width: int) -> Lanes:
        """Return so many zeros of float32."""
        return Lanes(self.builder, ir.Constant(F32, 0.0)).in_all(width)

    def when(self, condition: Lanes, body: Callable[[], None]) -> None:
        """Run `body` if a single condition holds."""
        with self.builder.if_then(condition.value):
            body()

    def _value(self, place: int) -> Any:
        at = self.builder.gep(self._given, [ir.Constant(I64, place)], source_etype=I64)
        return self.builder.load(at, typ=I64)

    def _argument(self, place: int, kind: Any) -> Lanes | Array:
        value = self._value(place)
        if kind is I64:
            return Lanes(self.builder, value)
        if kind is F64:
            return Lanes(self.builder, self.builder.bitcast(value, F64))
        return self.array(Lanes(self.builder, value), kind)
