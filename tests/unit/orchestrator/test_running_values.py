"""What is seen of an update's values while they come, whatever the pieces and the format."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.errors import FederationError
from common.int8_blocks import SCALED
from common.randomness import KEY_BYTES, RandomStream
from common.update_form import Update, UpdateForm
from common.weights import Layout, NotFinite
from common.wire_formats import MalformedEncoding, WireFormat, check_encoded, decode
from orchestrator.aggregation import BLOCK, LIMIT, Accumulator, OutOfRange
from orchestrator.decoding import Decoded
from orchestrator.running_values import RunningValues, explain
from tests.averaging import InMemory, mean_of

SIZE = 600
LAYOUT = Layout.of({"a": (500,), "b": (100,)})
WIDE = Layout.of({"w": (2 * BLOCK + 300,)})
FORMATS = st.sampled_from(list(WireFormat))
CUTS = st.lists(st.integers(0, 3000), max_size=4)


def update(wire_format: WireFormat, layout: Layout = LAYOUT, seed: int = 0) -> Update:
    values = np.random.default_rng(seed).normal(scale=1e-2, size=layout.size).astype(np.float32)
    return Update.of(UpdateForm(layout, wire_format), values, RandomStream(bytes(KEY_BYTES)))


def all_fit(data: np.ndarray, form: UpdateForm, cuts: list[int]) -> bool:
    """Return what is seen of `data` that come in pieces."""
    seen, edges = RunningValues(form), [0, *sorted(cuts), data.size]
    for start, stop in pairwise(edges):
        seen.see(data.data[start:stop])
    return seen.norm() is not None


@given(FORMATS, CUTS)
def test_values_as_they_are_written_fit_however_they_are_cut(wire_format, cuts):
    sent = update(wire_format)
    assert all_fit(sent.encoded, sent.form, [min(cut, sent.encoded.size) for cut in cuts])


@pytest.mark.parametrize("size", range(8))
@pytest.mark.parametrize("wire_format", WireFormat)
def test_what_comes_beyond_the_values_is_not_looked_at(wire_format, size):
    sent = update(wire_format)
    data = np.append(sent.encoded, np.full(size, 0xFF, np.uint8))
    assert all_fit(data, sent.form, [sent.encoded.size - 1])


BAD = {  # where in the encoded bytes, which bytes, whose fault
    "float32 NaN": (WireFormat.FLOAT32, 4 * 510, np.float32(np.nan), NotFinite),
    "float32 infinite": (WireFormat.FLOAT32, 4 * 510, np.float32(-np.inf), NotFinite),
    "float32 too large": (WireFormat.FLOAT32, 4 * 510, np.float32(-LIMIT), OutOfRange),
    "bfloat16 NaN": (WireFormat.BFLOAT16, 2 * 510, np.uint16(0xFFC0), NotFinite),
    "bfloat16 infinite": (WireFormat.BFLOAT16, 2 * 510, np.uint16(0x7F80), NotFinite),
    "bfloat16 too large": (WireFormat.BFLOAT16, 2 * 510, np.uint16(0x4500), OutOfRange),
    "int8 scale NaN": (WireFormat.INT8, 8, np.float32(np.nan), NotFinite),
    "int8 scale signalling NaN": (
        *(WireFormat.INT8, 8, np.uint32(0x7F800001)),
        NotFinite,
    ),
    "int8 scale infinite": (WireFormat.INT8, 8, np.float32(np.inf), NotFinite),
    "int8 scale too large": (WireFormat.INT8, 8, np.float32(LIMIT / 127), OutOfRange),
    "int8 scale negative": (WireFormat.INT8, 8, np.float32(-1.0), MalformedEncoding),
    "int8 scale zero": (WireFormat.INT8, 8, np.float32(0.0), MalformedEncoding),
    "int8 step": (WireFormat.INT8, 12 + 510, np.int8(-128), MalformedEncoding),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("cut", [1, 9, 1021, 1023])
def test_what_cannot_be_added_is_seen_and_named(what, cut):
    wire_format, place, value, error = BAD[what]
    sent = update(wire_format)
    data, raw = sent.encoded.copy(), np.frombuffer(value.tobytes(), np.uint8)
    data[place : place + raw.size] = raw
    assert not all_fit(data, sent.form, [cut])
    with pytest.raises(error) as caught:
        explain(data, sent.form)
    # value 510 lies in 'b', and the third of int8's blocks begins there
    named = {NotFinite: "'b'", OutOfRange: "'b'", MalformedEncoding: "int8"}[error]
    assert named in str(caught.value)


@pytest.mark.parametrize("place", [0, BLOCK // 2, BLOCK - 1, BLOCK, 2 * BLOCK + 299])
@pytest.mark.parametrize("what", ["float32 NaN", "bfloat16 NaN", "float32 too large", "int8 step"])
def test_one_value_among_many_is_seen_wherever_it_lies(what, place):
    wire_format, _, value, _ = BAD[what]
    sent = update(wire_format, WIDE)
    data, raw = sent.encoded.copy(), np.frombuffer(value.tobytes(), np.uint8)
    begin = data.size - (WIDE.size - place) * raw.size
    data[begin : begin + raw.size] = raw
    assert not all_fit(data, sent.form, [])
    assert not all_fit(data, sent.form, [data.size // 2 + 1])


@pytest.mark.parametrize(
    ("wire_format", "value"),
    [(WireFormat.FLOAT32, np.float32(2047.9999)), (WireFormat.BFLOAT16, np.uint16(0xC4FF))],
)
def test_values_just_inside_the_range_fit(wire_format, value):
    sent = update(wire_format)
    data, raw = sent.encoded.copy(), np.frombuffer(value.tobytes(), np.uint8)
    data[: raw.size] = raw
    assert all_fit(data, sent.form, [])


@given(
    FORMATS,
    st.binary(min_size=1, max_size=40),
    st.integers(0, 2400),
    CUTS,
)
@example(WireFormat.INT8, np.float32(LIMIT / 127).tobytes(), 0, [])
@example(WireFormat.INT8, np.nextafter(np.float32(LIMIT / 127), np.float32(0)).tobytes(), 0, [])
def test_anyones_bytes_are_refused_by_name_or_can_be_added(wire_format, raw, place, cuts):
    sent = update(wire_format)
    data = sent.encoded.copy()
    place %= data.size
    data[place : place + len(raw)] = np.frombuffer(raw, np.uint8)[: data.size - place]
    if all_fit(data, sent.form, [min(cut, data.size) for cut in cuts]):
        check_encoded(data, wire_format, SIZE)
        assert (np.abs(decode(data, wire_format, SIZE)) < LIMIT).all()
    else:
        with pytest.raises(FederationError):
            explain(data, sent.form)


class Watched:
    """Bytes that note how many of them are asked for at once."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data
        self.most = 0

    def __getitem__(self, place: slice) -> np.ndarray:
        self.most = max(self.most, place.stop - place.start)
        return self.data[place]


@pytest.mark.parametrize("wire_format", WireFormat)
def test_values_are_decoded_block_by_block(wire_format):
    sent = update(wire_format, WIDE)
    watched = Watched(sent.encoded)
    values = Decoded(watched, sent.form)
    found = [values.read(slice(start, start + BLOCK)) for start in range(0, WIDE.size, BLOCK)]
    assert np.concatenate(found).tobytes() == sent.values.tobytes()
    assert watched.most <= 4 * BLOCK
    assert values.size == WIDE.size


@given(FORMATS, st.lists(st.integers(0, 99), min_size=1, max_size=5, unique=True), st.randoms())
def test_the_average_is_that_of_the_decoded_values_in_any_order(wire_format, seeds, random):
    updates = {f"g{seed}": update(wire_format, seed=seed) for seed in seeds}
    weights = {name: 3 * place + 1 for place, name in enumerate(updates)}
    order = random.sample(list(updates), len(updates))
    there = Accumulator(SIZE, sum(weights.values()))
    back = Accumulator(SIZE, sum(weights.values()))
    for name, sent in updates.items():
        there.add(name, Decoded(sent.encoded, sent.form), weights[name])
    for name in order:
        back.add(name, InMemory(updates[name].values), weights[name])
    mean = mean_of(there)
    assert mean.tobytes() == mean_of(back).tobytes()
    total = sum(weights.values())
    for place in (0, SCALED, SIZE - 1):
        exact = sum(Fraction(float(u.values[place])) * weights[n] for n, u in updates.items())
        assert abs(Fraction(float(mean[place])) - exact / total) <= Fraction(len(updates), 2**40)
