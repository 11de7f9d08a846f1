"""Each format's bytes, its error bound, and what it refuses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.int8_blocks import SCALED, SMALLEST_SCALE
from common.randomness import KEY_BYTES, RandomStream
from common.wire_formats import (
    BLOCK,
    DoesNotFit,
    MalformedEncoding,
    WireFormat,
    check_encoded,
    decode,
    decode_block,
    encode,
    encoded_length,
)

FLOAT32, BFLOAT16, INT8 = WireFormat
LARGEST = float(np.finfo(np.float32).max)
DENORMAL = 2.0**-149
KEYS = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
USUAL = st.floats(-1e3, 1e3, width=32)
ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def some(size: int, scale: float = 1e-3) -> np.ndarray:
    """Values as an update has them."""
    return np.random.default_rng(size).normal(scale=scale, size=size).astype(np.float32)


def stream(key: bytes = bytes(KEY_BYTES)) -> RandomStream:
    return RandomStream(key)


def sent(values: np.ndarray, wire_format: WireFormat, key: bytes = bytes(KEY_BYTES)) -> np.ndarray:
    return decode(encode(values, wire_format, stream(key)), wire_format, values.size)


def scales_of(data: np.ndarray, size: int) -> np.ndarray:
    return np.repeat(data[:-size].view("<f4").astype(np.float64), SCALED)[:size]


@st.composite
def arrays(draw, values=ANY) -> np.ndarray:
    """Blocks of likely and unlikely lengths, and values that repeat."""
    few = draw(st.lists(values, min_size=1, max_size=6))
    size = draw(st.sampled_from([1, 2, 255, 256, 257, 600]))
    return np.resize(floats(*few), size)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, BLOCK, BLOCK + 1])
@pytest.mark.parametrize(
    ("wire_format", "length"),
    [
        (FLOAT32, lambda n: 4 * n),
        (BFLOAT16, lambda n: 2 * n),
        (INT8, lambda n: 4 * ((n + 255) // 256) + n),
    ],
)
def test_the_length_follows_from_the_format_and_the_size(wire_format, length, size):
    assert encoded_length(wire_format, size) == length(size)
    assert encode(some(size), wire_format, stream()).size == length(size)


@given(arrays())
def test_float32_keeps_every_bit(values):
    assert encode(values, FLOAT32).tobytes() == values.astype("<f4").tobytes()
    assert sent(values, FLOAT32).tobytes() == values.tobytes()


@given(arrays(st.floats(-(2.0**127), 2.0**127, width=32)))
@example(floats(0.0, -0.0, DENORMAL, -DENORMAL, 2.0**-126, 2.0**-127))
def test_bfloat16_is_off_by_at_most_half_a_step(values):
    error = np.abs(sent(values, BFLOAT16).astype(np.float64) - values)
    magnitude = np.abs(values.astype(np.float64))
    assert (error <= np.maximum(magnitude * 2.0**-8, 2.0**-134)).all()
    exponent = np.maximum(np.frexp(magnitude)[1] - 1, -126)
    assert (error <= 2.0 ** (exponent - 8.0)).all()


@given(arrays(st.floats(-(2.0**127), 2.0**127, width=32)))
def test_bfloat16_is_the_nearest_and_in_a_tie_the_even_one(values):
    for value, got in zip(values[:6], encode(values, BFLOAT16).view("<u2"), strict=False):
        below = int(value.view(np.uint32)) >> 16
        two = np.array([below << 16, (below + 1) << 16], dtype=np.uint32).view(np.float32)
        away = [abs(Fraction(float(value)) - Fraction(float(each))) for each in two]
        nearest = below + (away[1] < away[0] or (away[1] == away[0] and below % 2))
        assert int(got) == nearest


def test_bfloat16_bytes_are_those_of_the_upper_halves():
    values = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0xBF808001], np.uint32).view(np.float32)
    assert encode(values, BFLOAT16).view("<u2").tolist() == [0x3F80, 0x3F80, 0x3F82, 0xBF81]


@given(arrays(), KEYS)
@example(floats(0.0), bytes(KEY_BYTES))
@example(floats(LARGEST * 0.99, DENORMAL), bytes(KEY_BYTES))
@example(floats(DENORMAL, -DENORMAL), bytes(KEY_BYTES))
@example(floats(180 * DENORMAL), bytes(KEY_BYTES))
@example(floats(2.0**-112, 2.0**-93, -(2.0**-93)), bytes(KEY_BYTES))
def test_int8_is_off_by_less_than_a_scale(values, key):
    try:
        data = encode(values, INT8, stream(key))
    except DoesNotFit:
        assert np.abs(values).max() > LARGEST * (1 - 2.0**-22)
        return
    scales, decoded = scales_of(data, values.size), decode(data, INT8, values.size)
    error = np.abs(decoded.astype(np.float64) - values)
    assert (error < (1 + 2.0**-14) * scales).all()


@given(arrays(USUAL))
def test_the_scale_is_the_least_that_holds_the_block(values):
    data = encode(values, INT8, stream())
    for first in range(0, values.size, SCALED):
        largest = np.abs(values[first : first + SCALED]).max().astype(np.float64)
        scale = data[: -values.size].view("<f4")[first // SCALED]
        smaller = np.nextafter(scale, np.float32(0)).astype(np.float64)
        assert scale.astype(np.float64) * 127 >= largest
        assert scale == SMALLEST_SCALE or smaller * 127 < largest


@pytest.mark.parametrize("quotient", [0.0, 0.001, 0.3, 0.5, 63.75, 126.999, -0.25, -126.5])
def test_int8_is_right_on_average(quotient):
    """Of 2^22 roundings the mean lies within 5 standard deviations, and the bias allowed."""
    block = np.full(SCALED, np.float32(quotient))
    block[0] = 127.0  # so the scale is 1
    values = np.tile(block, 1 << 14)
    found = sent(values, INT8).reshape(-1, SCALED)[:, 1:].astype(np.float64)
    share = quotient % 1.0
    width = 5 * np.sqrt(share * (1 - share) / found.size) + 2.0**-14
    assert abs(found.mean() - np.float32(quotient)) <= width
    assert set(np.unique(found)) <= {np.floor(quotient), np.ceil(quotient)}


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_largest_of_a_block_is_never_carried_beyond_127(sign):
    values = np.full(1 << 18, sign * np.float32(0.1))
    steps = encode(values, INT8, stream())[encoded_length(INT8, values.size) - values.size :]
    assert set(np.unique(steps.view(np.int8))) <= {int(sign * 126), int(sign * 127)}


def test_the_same_key_gives_the_same_bytes_and_another_gives_others():
    values = some(3 * BLOCK + 5)
    once = encode(values, INT8, stream())
    assert once.tobytes() == encode(values, INT8, stream()).tobytes()
    assert once.tobytes() != encode(values, INT8, stream(b"1" * KEY_BYTES)).tobytes()


def test_the_stream_is_used_by_as_much_as_is_documented_whatever_the_values():
    for values in (some(1000), np.zeros(1000, dtype=np.float32)):
        used, skipped = stream(), stream()
        encode(values, INT8, used)
        skipped.skip(2 * values.size)
        assert used.read(16) == skipped.read(16)


def test_the_bytes_are_those_of_version_1():
    values = floats(*([63.5] * 256), 254.0, -127.0, 0.0)
    data = encode(values, INT8, stream())
    assert data[:8].view("<f4").tolist() == [0.5, 2.0]
    assert data[8 + 256 :].view(np.int8).tolist() in ([127, -64, 0], [126, -64, 0])
    assert data.size == 8 + 259


def test_without_a_stream_int8_cannot_be_written():
    with pytest.raises(ValueError, match="stream of randomness"):
        encode(floats(1.0), INT8)


@pytest.mark.parametrize("wire_format", WireFormat)
@pytest.mark.parametrize("place", [0, 300, BLOCK + 7])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(wire_format, place, value):
    values = some(BLOCK + 300)
    values[place] = value
    with pytest.raises(DoesNotFit, match="not finite, or too large for"):
        encode(values, wire_format, stream())


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("wire_format", [BFLOAT16, INT8])
def test_the_largest_float32_does_not_fit_and_is_refused(wire_format, sign):
    with pytest.raises(DoesNotFit):
        encode(floats(0.0, sign * LARGEST), wire_format, stream())


def test_the_largest_that_bfloat16_holds_fits_and_so_does_all_that_rounds_to_it():
    largest, last = np.array([0x7F7F0000, 0x7F7F7FFF], np.uint32).view(np.float32)
    assert sent(floats(largest, -last), BFLOAT16).tolist() == [largest, -largest]
    with pytest.raises(DoesNotFit):
        encode(floats(np.nextafter(last, np.float32(np.inf))), BFLOAT16)


@pytest.mark.parametrize("wire_format", WireFormat)
@pytest.mark.parametrize("change", [-1, 1, 4])
def test_another_length_is_refused(wire_format, change):
    data = np.resize(encode(some(600), wire_format, stream()), encoded_length(wire_format, 600))
    other = np.resize(data, data.size + change)
    with pytest.raises(MalformedEncoding, match="600 values have"):
        decode(other, wire_format, 600)


@pytest.mark.parametrize(
    ("wire_format", "place", "written"),
    [
        (FLOAT32, 4 * BLOCK, floats(np.nan)),
        (FLOAT32, 0, floats(-np.inf)),
        (BFLOAT16, 2 * BLOCK, np.array([0x7F80], np.uint16)),
        (BFLOAT16, 0, np.array([0xFFFF], np.uint16)),
        (INT8, 4, floats(np.nan)),
        (INT8, 4, floats(-1.0)),
        (INT8, 4, floats(0.0)),
        (INT8, 4, floats(2.0**-101)),
        (INT8, 4, floats(LARGEST / 126)),
        (INT8, -1, np.array([-128], np.int8)),
    ],
)
def test_bytes_that_are_never_written_are_refused(wire_format, place, written):
    size = BLOCK + 10
    data = encode(some(size), wire_format, stream())
    check_encoded(data, wire_format, size)
    raw = written.view(np.uint8)
    data[place : place + raw.size if place >= 0 else None] = raw
    with pytest.raises(MalformedEncoding):
        check_encoded(data, wire_format, size)


@given(st.sampled_from(list(WireFormat)), st.binary(max_size=700), st.integers(0, 600))
def test_bytes_of_anyone_are_refused_or_finite(wire_format, data, size):
    try:
        values = decode(np.frombuffer(data, dtype=np.uint8), wire_format, size)
    except MalformedEncoding:
        return
    assert np.isfinite(values).all()


@pytest.mark.parametrize("wire_format", WireFormat)
@pytest.mark.parametrize("count", [SCALED, 2 * SCALED, BLOCK])
def test_block_by_block_the_values_are_the_same(wire_format, count):
    values = some(BLOCK + 777)
    data = encode(values, wire_format, stream())
    out = np.empty(values.size, dtype=np.float32)
    for start in range(0, values.size, count):
        decode_block(data, wire_format, values.size, start, out[start : start + count])
    assert out.tobytes() == decode(data, wire_format, values.size).tobytes()


def test_int8_is_read_from_whole_blocks_on():
    data = encode(some(600), INT8, stream())
    with pytest.raises(ValueError, match="multiples of 256"):
        decode_block(data, INT8, 600, 100, np.empty(10, dtype=np.float32))
