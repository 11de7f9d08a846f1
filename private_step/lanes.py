"""Arithmetic on many values at once, written as Python expressions and compiled by LLVM.

A kernel is a function that is called once, with values that stand for vectors; what it does to
them becomes instructions. LLVM makes of them what the processor has, so nothing depends on a loop
being recognised, and no compiler is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir

Number: TypeAlias = "Lanes | float"

F32, F64 = ir.FloatType(), ir.DoubleType()
I32, I64 = ir.IntType(32), ir.IntType(64)
WIDTHS = (16, 8, 1)  # values at once; the narrower ones are for what is left of a row
#: A product and a sum may be rounded as one; the sign of zero does not matter. Nothing else: what
#: is not a number stays none.
FLAGS = ("contract", "nsz")


@dataclass(frozen=True)
class Lanes:
    """Values of one kind side by side, or a single one."""

    builder: Any
    value: Any

    def __add__(self, other: Number) -> Lanes:
        return self._with(other, "fadd", "add")

    def __mul__(self, other: Number) -> Lanes:
        return self._with(other, "fmul", "mul")

    def __sub__(self, other: Number) -> Lanes:
        return self._with(other, "fsub", "sub")

    def __rsub__(self, other: float) -> Lanes:
        return self._same(other) - self

    def __rtruediv__(self, other: float) -> Lanes:
        return self._same(other)._with(self, "fdiv", "sdiv")

    def __neg__(self) -> Lanes:
        return 0 - self

    def __and__(self, other: Number) -> Lanes:
        return self._with(other, "and_", "and_")

    def __xor__(self, other: Number) -> Lanes:
        return self._with(other, "xor", "xor")

    def __rshift__(self, bits: int) -> Lanes:
        return self._with(bits, "ashr", "ashr")

    def __lshift__(self, bits: int) -> Lanes:
        return self._with(bits, "shl", "shl")

    def __lt__(self, other: Number) -> Lanes:
        if self._is_real():
            return self._made(self.builder.fcmp_ordered("<", self.value, self._same(other).value))
        return self._made(self.builder.icmp_signed("<", self.value, self._same(other).value))

    def __gt__(self, other: Number) -> Lanes:
        return self._same(other) < self

    def where(self, then: Lanes, otherwise: Lanes) -> Lanes:
        """Return `then` in the lanes in which this is true."""
        return self._made(self.builder.select(self.value, then.value, otherwise.value))

    def at_most(self, limit: Number) -> Lanes:
        """Return the lesser of each value and `limit`."""
        return (self > limit).where(self._same(limit), self)

    def at_least(self, limit: Number) -> Lanes:
        """Return the greater of each value and `limit`."""
        return (self < limit).where(self._same(limit), self)

    def single(self) -> Lanes:
        """Return float32: of whole numbers, or of float64."""
        kind = self._wide(F32)
        if self._is_real():
            return self._made(self.builder.fptrunc(self.value, kind))
        return self._made(self.builder.sitofp(self.value, kind))

    def whole(self) -> Lanes:
        """Return the whole numbers, int32, that float32 values hold."""
        return self._made(self.builder.fptosi(self.value, self._wide(I32)))

    def bits(self) -> Lanes:
        """Return the bits of float32 as int32."""
        return self._made(self.builder.bitcast(self.value, self._wide(I32)))

    def of_bits(self) -> Lanes:
        """Return the float32 that these bits are."""
        return self._made(self.builder.bitcast(self.value, self._wide(F32)))

    def fused(self, factor: Lanes, summand: Lanes) -> Lanes:
        """Return the product with `factor` plus `summand`, rounded once."""
        return self._call("fma", factor, summand)

    def sqrt(self) -> Lanes:
        """Return the square roots."""
        return self._call("sqrt")

    def floor(self) -> Lanes:
        """Return the whole numbers at or below."""
        return self._call("floor")

    def rint(self) -> Lanes:
        """Return the nearest whole numbers, the even one of two."""
        return self._call("rint")

    def total(self) -> Lanes:
        """Return the sum over all lanes of float32, in some order."""
        kind = self.value.type
        name = f"llvm.vector.reduce.fadd.v{kind.count}f32"
        zero = ir.Constant(F32, 0.0)
        function = self._intrinsic(name, ir.FunctionType(F32, [F32, kind]))
        return self._made(self.builder.call(function, [zero, self.value], fastmath=("reassoc",)))

    def in_all(self, width: int) -> Lanes:
        """Return this single value in `width` lanes."""
        if width == 1:
            return self
        kind = ir.VectorType(self.value.type, width)
        none = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(none, self.value, ir.Constant(I32, 0))
        places = ir.Constant(ir.VectorType(I32, width), [0] * width)
        return self._made(self.builder.shuffle_vector(first, none, places))

    def _with(self, other: Number, real: str, whole: str) -> Lanes:
        values = self.value, self._same(other).value
        if self._is_real():
            return self._made(getattr(self.builder, real)(*values, flags=FLAGS))
        return self._made(getattr(self.builder, whole)(*values))

    def _same(self, other: Number) -> Lanes:
        """Return a number as values of this kind."""
        if isinstance(other, Lanes):
            return other
        kind = self.value.type
        number = float(other) if self._is_real() else int(other)
        if isinstance(kind, ir.VectorType):
            return self._made(ir.Constant(kind, [number] * kind.count))
        return self._made(ir.Constant(kind, number))

    def _call(self, name: str, *others: Lanes) -> Lanes:
        kind = self.value.type
        suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
        given = [self.value, *(each.value for each in others)]
        taken = ir.FunctionType(kind, [kind] * len(given))
        function = self._intrinsic(f"llvm.{name}.{suffix}", taken)
        return self._made(self.builder.call(function, given))

    def _intrinsic(self, name: str, kind: Any) -> Any:
        module = self.builder.module
        return module.globals.get(name) or ir.Function(module, kind, name)

    def _wide(self, kind: Any) -> Any:
        own = self.value.type
        return ir.VectorType(kind, own.count) if isinstance(own, ir.VectorType) else kind

    def _element(self) -> Any:
        own = self.value.type
        return own.element if isinstance(own, ir.VectorType) else own

    def _is_real(self) -> bool:
        return self._element() in (F32, F64)

    def _made(self, value: Any) -> Lanes:
        return Lanes(self.builder, value)


@dataclass(frozen=True)
class Array:
    """Values in memory, one behind the other, of one kind."""

    builder: Any
    pointer: Any
    kind: Any

    def from_(self, place: Lanes) -> Array:
        """Return what begins at `place`."""
        there = self.builder.gep(self.pointer, [place.value], source_etype=self.kind)
        return Array(self.builder, there, self.kind)

    def address(self) -> Lanes:
        """Return where it begins, as C functions are told."""
        return Lanes(self.builder, self.builder.ptrtoint(self.pointer, I64))

    def load(self, place: Lanes, width: int) -> Lanes:
        """Return the `width` values from `place` on."""
        found = self.builder.load(self.from_(place).pointer, align=4, typ=self._wide(width))
        return Lanes(self.builder, found)

    def store(self, place: Lanes, values: Lanes) -> None:
        """Write values from `place` on."""
        self.builder.store(values.value, self.from_(place).pointer, align=4)

    def _wide(self, width: int) -> Any:
        return self.kind if width == 1 else ir.VectorType(self.kind, width)


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
