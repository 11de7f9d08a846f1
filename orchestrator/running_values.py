"""Whether an update's values can be added, and their norm: seen piece by piece as they come.

Each piece is looked at while it lies in the processor's cache, and nothing is decoded for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from common.int8_blocks import SCALED, STEPS, are_possible
from common.weights import NotFinite, check_finite
from common.wire_formats import WireFormat, check_encoded, decode_block, encoded_length, pieces
from orchestrator.aggregation import LIMIT, OutOfRange, blocks, check_range
from orchestrator.running_norm import RunningNorm

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from common.update_form import UpdateForm

EVERY_VALUE_FITS = "values that do not fit all fit"
_LIMIT_BITS = np.float32(LIMIT).view(np.uint32)  # floats of one sign are ordered as their bits are


@dataclass(frozen=True)
class _Part:
    """Values of one kind that lie side by side."""

    byte_length: int
    kind: str  # as numpy writes it
    fit: Callable[[NDArray[Any]], bool]
    is_scales: bool = False  # of int8


class RunningValues:
    """Sees the bytes behind an update's header once, in order."""

    def __init__(self, form: UpdateForm) -> None:
        """Expect values of `form`; what comes beyond them is not looked at."""
        self._parts = list(reversed(_parts(form)))
        self._left = self._parts[-1].byte_length
        self._rest = b""  # of a value that a piece broke off
        self._norm = RunningNorm(form.wire_format, self._parts[0].fit)
        self._scales_fit = True  # so far

    def norm(self) -> float | None:
        """Return the L2 norm of all values, once all were seen; None: not all can be added."""
        return self._norm.value() if self._scales_fit else None

    def see(self, data: memoryview) -> None:
        """Look at the bytes that come next."""
        while len(data) and self._parts:
            taken, data = data[: self._left], data[self._left :]
            self._left -= len(taken)
            self._look(taken)
            if not self._left:
                self._next_part()

    def _look(self, data: memoryview) -> None:
        part = self._parts[-1]
        if self._rest:
            data = memoryview(b"".join((self._rest, data)))
        whole = len(data) - len(data) % np.dtype(part.kind).itemsize
        self._rest = bytes(data[whole:])
        values = np.frombuffer(data[:whole], dtype=part.kind)
        if part.is_scales:
            self._scales_fit = self._scales_fit and part.fit(values)
            self._norm.see_scales(values)
        elif self._scales_fit:
            self._norm.see(values)

    def _next_part(self) -> None:
        self._parts.pop()
        self._left = self._parts[-1].byte_length if self._parts else 0


def explain(data: NDArray[np.uint8], form: UpdateForm) -> NoReturn:
    """Raise what is wrong with values of which not all fit.

    Args:
        data: all bytes behind the header, as many as the form has.
        form: what they are of.

    Raises:
        NotFinite, OutOfRange: a value cannot be added; its tensor is named.
        MalformedEncoding: int8 has a scale or a step that is never written.
    """
    if form.wire_format is WireFormat.INT8:
        _explain_int8(data, form)
    for check in (check_finite, check_range):
        for block in blocks(form.size):
            values = np.empty(min(block.stop, form.size) - block.start, dtype=np.float32)
            decode_block(data, form.wire_format, form.size, block.start, values)
            check(values, form.layout, block.start)
    raise AssertionError(EVERY_VALUE_FITS)


def _explain_int8(data: NDArray[np.uint8], form: UpdateForm) -> NoReturn:
    scales = data[pieces(form.wire_format, form.size, 0, form.size)[0]].view("<f4")
    if not (finite := np.isfinite(scales)).all():
        raise NotFinite(form.layout.tensor_at(int(np.argmin(finite)) * SCALED))
    check_encoded(data, form.wire_format, form.size)
    if not (fit := _below_limit(scales)).all():
        raise OutOfRange(form.layout.tensor_at(int(np.argmin(fit)) * SCALED))
    raise AssertionError(EVERY_VALUE_FITS)


def _parts(form: UpdateForm) -> tuple[_Part, ...]:
    length = encoded_length(form.wire_format, form.size)
    match form.wire_format:
        case WireFormat.FLOAT32:
            return (_Part(length, "<u4", _float32_fit),)
        case WireFormat.BFLOAT16:
            return (_Part(length, "<u2", _bfloat16_fit),)
        case WireFormat.INT8:
            scales = length - form.size
            return (
                _Part(scales, "<f4", _scales_fit, is_scales=True),
                _Part(form.size, "i1", _steps_fit),
            )


def _float32_fit(bits: NDArray[np.uint32]) -> bool:
    """Whether all values, given as their bits, are finite and below LIMIT in size."""
    return bool((bits & np.uint32(0x7FFFFFFF)).max(initial=0) < _LIMIT_BITS)


def _bfloat16_fit(bits: NDArray[np.uint16]) -> bool:
    return bool((bits & np.uint16(0x7FFF)).max(initial=0) < _LIMIT_BITS >> np.uint32(16))


def _scales_fit(scales: NDArray[np.float32]) -> bool:
    return bool((are_possible(scales) & _below_limit(scales)).all())


def _below_limit(scales: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether the largest value that each scale allows is; the largest of a block is near it."""
    return scales < np.float32(LIMIT / STEPS)


def _steps_fit(steps: NDArray[np.int8]) -> bool:
    return bool(steps.min(initial=0) >= -STEPS)
