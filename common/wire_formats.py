r"""How the values of an update are written for the wire: float32, bfloat16, or int8 in blocks.

Layout, version 1; every number is little-endian, n is how many values there are:

==========  =======================  =====================================================
format      bytes                    what they are
==========  =======================  =====================================================
float32     4 n                      the values
bfloat16    2 n                      the upper halves of the values' float32, rounded
int8        4 ceil(n / 256) + n      a float32 scale for each block of 256 values, then one
                                     signed byte for each value: the value over its scale
==========  =======================  =====================================================

The length follows from the format and n, and any other is refused. Equal values (and for int8 the
same stream of randomness) give equal bytes. A layout that changes gets a new name in `WireFormat`.

Values are noised before they are written, and int8 rounds by bits that do not depend on them: what
is done here is post-processing and costs no privacy (Dwork and Roth 2014, Proposition 2.1).

Everything works in blocks that stay in the processor's cache.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import RequestError
from common.int8_blocks import SCALED, STEPS, Float32, Int8Encoder, are_possible, multiply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from common.randomness import RandomStream

Bytes: TypeAlias = NDArray[np.uint8]

BLOCK = 1 << 16  # values that are worked on at once; a multiple of SCALED

_INFINITY = np.float32(np.inf)
_BFLOAT16_INFINITY = 0x7F80  # its bits
_BFLOAT16_LIMIT = np.float32(2.0**128 - 2.0**119)  # from here on values round to infinity


class WireFormat(StrEnum):
    """How values are written; a plan names one."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    INT8 = "int8"


class DoesNotFit(RequestError):
    """A value cannot be written in the format."""

    def __init__(self, wire_format: WireFormat, start: int, stop: int) -> None:
        super().__init__(
            f"values {start} to {stop - 1} hold one that is not finite, or too large for "
            f"{wire_format}: lower the learning rate or check the data"
        )


class MalformedEncoding(RequestError):
    """Bytes are not what the format writes."""

    def __init__(self, wire_format: WireFormat, problem: str) -> None:
        super().__init__(f"these bytes are not values in {wire_format}: {problem}")


def encoded_length(wire_format: WireFormat, size: int) -> int:
    """Return how many bytes `size` values have in the format."""
    match wire_format:
        case WireFormat.FLOAT32:
            return 4 * size
        case WireFormat.BFLOAT16:
            return 2 * size
        case WireFormat.INT8:
            return _scales_length(size) + size


def encode(
    values: Float32,
    wire_format: WireFormat,
    rounding: RandomStream | None = None,
    *,
    out: Bytes | None = None,
) -> Bytes:
    r"""Return `values` in the format.

    Args:
        values: x, shape (n,), finite.
        wire_format: float32 keeps every bit.

            bfloat16 keeps 8 significant bits, rounding to the nearest, ties to even. Neighbours
            in [2^e, 2^(e+1)) are 2^(e-7) apart, so the error is at most
            :math:`2^{e-8} \le 2^{-8} |x|`; below the smallest normal value, 2^-126, where they
            stay 2^-133 apart, at most 2^-134.

            int8 divides by the block's scale :math:`s \ge \max|x| / 127` and rounds up or down at
            random, so that the mean is the value: the error is less than
            :math:`(1 + 2^{-14}) s`, its mean over the randomness at most :math:`2^{-14} s`. (The
            quotient is reckoned in float32, made smaller by 2^-22 of itself so that none passes
            127, and kept to 16 fractional bits: together less than 2^-14.)
        rounding: of int8; 2 bytes for each value in order. Under the same key, the same bytes
            again. It must be independent of the values and used for nothing else.
        out: room for them, shape (encoded_length,); None: fresh memory.

    Returns:
        Shape (encoded_length,).

    Raises:
        DoesNotFit: a value is not finite, or would not be after rounding.

    Source:
        Gupta et al. 2015, "Deep Learning with Limited Numerical Precision", section 3, for
        stochastic rounding; Alistarh et al. 2017, "QSGD", for a scale in each block.
    """
    data = (
        np.empty(encoded_length(wire_format, values.size), dtype=np.uint8) if out is None else out
    )
    match wire_format:
        case WireFormat.FLOAT32:
            _encode_float32(values, data.view("<f4"))
        case WireFormat.BFLOAT16:
            _encode_bfloat16(values, data.view("<u2"))
        case WireFormat.INT8:
            if rounding is None:
                msg = "int8 rounds by a stream of randomness, and there is none"
                raise ValueError(msg)
            _encode_int8(values, *_parts(data, values.size), rounding)
    return data


def check_encoded(data: Bytes, wire_format: WireFormat, size: int) -> None:
    """Raise MalformedEncoding unless `data` are finite values that `encode` could have written."""
    for problem in _problems(data, wire_format, size):
        raise MalformedEncoding(wire_format, problem)


def decode_block(data: Bytes, wire_format: WireFormat, size: int, start: int, out: Float32) -> None:
    """Write the values from `start` on into `out`, so that no whole copy of them is needed.

    Args:
        data: what `check_encoded` let pass, of `size` values in all.
        wire_format: its format.
        size: the whole's.
        start: the first value's place; for int8 a multiple of SCALED.
        out: shape (count,), contiguous; overwritten. BLOCK values at once stay in the cache.
    """
    places = pieces(wire_format, size, start, start + out.size)
    decode_pieces([data[place] for place in places], wire_format, out)


def pieces(wire_format: WireFormat, size: int, start: int, stop: int) -> tuple[slice, ...]:
    """Return where in the bytes of `size` values that lies which some of them are made of.

    Args:
        wire_format: the bytes' format.
        size: how many values there are in all.
        start: the first value's place; for int8 a multiple of SCALED.
        stop: the place after the last one's.
    """
    match wire_format:
        case WireFormat.FLOAT32:
            return (slice(4 * start, 4 * stop),)
        case WireFormat.BFLOAT16:
            return (slice(2 * start, 2 * stop),)
        case WireFormat.INT8:
            if start % SCALED:
                msg = f"int8 is read from multiples of {SCALED} on, not from {start}"
                raise ValueError(msg)
            cut = _scales_length(size)
            scales = slice(4 * (start // SCALED), _scales_length(stop))
            return (scales, slice(cut + start, cut + stop))


def decode_pieces(data: Sequence[Bytes], wire_format: WireFormat, out: Float32) -> None:
    """Write the values that the `pieces` of bytes hold into `out`."""
    match wire_format:
        case WireFormat.FLOAT32:
            out[:] = data[0].view("<f4")
        case WireFormat.BFLOAT16:
            bits = out.view(np.uint32)
            bits[:] = data[0].view("<u2")
            bits <<= np.uint32(16)
        case WireFormat.INT8:
            out[:] = data[1].view(np.int8)
            multiply(out, data[0].view("<f4"))


def decode(data: Bytes, wire_format: WireFormat, size: int) -> Float32:
    """Return all values of `data`, checked; raise MalformedEncoding."""
    check_encoded(data, wire_format, size)
    values = np.empty(size, dtype=np.float32)
    for start, stop in _blocks(size):
        decode_block(data, wire_format, size, start, values[start:stop])
    return values


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, BLOCK):
        yield start, min(start + BLOCK, size)


def _scales_length(size: int) -> int:
    return 4 * -(-size // SCALED)


def _parts(data: Bytes, size: int) -> tuple[Float32, NDArray[np.int8]]:
    """Return the scales and the steps of int8."""
    cut = _scales_length(size)
    return data[:cut].view("<f4"), data[cut:].view(np.int8)


def _lies_within(block: Float32, limit: np.float32) -> bool:
    """Whether every value is below `limit` in size; NaN is not."""
    return bool(block.max(initial=0.0) < limit and block.min(initial=0.0) > -limit)


def _encode_float32(values: Float32, out: Float32) -> None:
    for start, stop in _blocks(values.size):
        if not _lies_within(values[start:stop], _INFINITY):
            raise DoesNotFit(WireFormat.FLOAT32, start, stop)
        out[start:stop] = values[start:stop]


def _encode_bfloat16(values: Float32, out: NDArray[np.uint16]) -> None:
    """Round to even: add just under half of the last kept bit, and that bit itself."""
    room, half = np.empty(BLOCK, dtype=np.uint32), np.uint32(0x7FFF)
    for start, stop in _blocks(values.size):
        if not _lies_within(values[start:stop], _BFLOAT16_LIMIT):
            raise DoesNotFit(WireFormat.BFLOAT16, start, stop)
        bits, rounded = values[start:stop].view(np.uint32), room[: stop - start]
        np.right_shift(bits, np.uint32(16), out=rounded)
        rounded &= np.uint32(1)
        rounded += bits
        rounded += half
        rounded >>= np.uint32(16)
        out[start:stop] = rounded


def _encode_int8(
    values: Float32, scales: Float32, steps: NDArray[np.int8], rounding: RandomStream
) -> None:
    encoder = Int8Encoder(rounding, BLOCK)
    for start, stop in _blocks(values.size):
        rows = slice(start // SCALED, -(-stop // SCALED))
        if not encoder.encode(values[start:stop], scales[rows], steps[start:stop]):
            raise DoesNotFit(WireFormat.INT8, start, stop)


def _problems(data: Bytes, wire_format: WireFormat, size: int) -> Iterator[str]:
    need = encoded_length(wire_format, size)
    if data.size != need:
        yield f"{data.size} bytes, {size} values have {need}"
    elif wire_format is WireFormat.INT8:
        yield from _problems_of_int8(*_parts(data, size))
    else:
        of_float32 = wire_format is WireFormat.FLOAT32
        for start, stop in _blocks(size):
            if not (_is_float32 if of_float32 else _is_bfloat16)(data, slice(start, stop)):
                yield f"one of values {start} to {stop - 1} is not finite"


def _is_float32(data: Bytes, block: slice) -> bool:
    return _lies_within(data.view("<f4")[block], _INFINITY)


def _is_bfloat16(data: Bytes, block: slice) -> bool:
    magnitudes = data.view("<u2")[block] & np.uint16(0x7FFF)  # ordered by size as their bits are
    return bool(magnitudes.max() < _BFLOAT16_INFINITY)


def _problems_of_int8(scales: Float32, steps: NDArray[np.int8]) -> Iterator[str]:
    is_possible = are_possible(scales)
    if not is_possible.all():
        yield f"the scale of block {int(np.argmin(is_possible))} is none that is ever written"
    for start, stop in _blocks(steps.size):
        if steps[start:stop].min() < -STEPS:
            yield f"one of values {start} to {stop - 1} has -128 steps"
