"""Arithmetic on many values at once, written as Python expressions and compiled by LLVM.

A value here stands for a vector, and what is done to it becomes an instruction. LLVM makes of them
what the processor has, so nothing depends on a loop being recognised, and no compiler is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from llvmlite import ir

Number: TypeAlias = "Lanes | float"

F32, F64 = ir.FloatType(), ir.DoubleType()
I32, I64 = ir.IntType(32), ir.IntType(64)
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
