"""An update's bytes: a file that names its format, and never another's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from common.int8_blocks import SCALED
from common.randomness import KEY_BYTES, RandomStream
from common.update_form import Update, UpdateForm
from common.weights import (
    UNNAMED,
    ElementTypeMismatch,
    Layout,
    MalformedWeights,
    NameMismatch,
    NotFinite,
    ShapeMismatch,
    Weights,
)
from common.wire_formats import DoesNotFit, MalformedEncoding, WireFormat, decode, encode

LAYOUT = Layout.of({"a": (3, 100), "b.ä": (), "c": (0, 4), "d": (313,)})
FLOAT32, BFLOAT16, INT8 = (UpdateForm(LAYOUT, each) for each in WireFormat)
FORMS = (FLOAT32, BFLOAT16, INT8)
VALUES = np.random.default_rng(1).normal(scale=1e-2, size=LAYOUT.size).astype(np.float32)
PAIRS = [(sent, agreed) for sent in FORMS for agreed in FORMS if sent != agreed]


def rounding(key: bytes = bytes(KEY_BYTES)) -> RandomStream:
    return RandomStream(key)


def update(form: UpdateForm, values: np.ndarray = VALUES) -> Update:
    return Update.of(form, values, rounding())


def test_in_float32_the_bytes_and_the_digest_are_those_of_weights():
    weights = Weights(LAYOUT, VALUES)
    assert update(FLOAT32).to_bytes() == weights.to_bytes()
    assert update(FLOAT32).digest == weights.digest


@pytest.mark.parametrize("form", FORMS)
def test_the_bytes_come_back_as_what_the_codec_decodes(form):
    sent = update(form)
    assert len(sent.data) == form.byte_length
    assert len(form.header) % 8 == 0
    assert sent.digest == blake3(sent.to_bytes()).hexdigest()
    expected = decode(encode(VALUES, form.wire_format, rounding()), form.wire_format, VALUES.size)
    came = Update.from_bytes(sent.to_bytes(), form)
    assert came.values.tobytes() == expected.tobytes()
    assert (came.to_bytes(), came.digest) == (sent.to_bytes(), sent.digest)


@pytest.mark.parametrize("form", FORMS)
def test_the_bytes_are_a_file_that_safetensors_reads(form):
    sent = update(form)
    found = load(sent.to_bytes())
    scales = found.pop(UNNAMED, torch.ones(-(-LAYOUT.size // SCALED)))
    flat = torch.cat([found[tensor.name].flatten() for tensor in LAYOUT.tensors])
    assert [found[tensor.name].shape for tensor in LAYOUT.tensors] == [
        tensor.shape for tensor in LAYOUT.tensors
    ]
    whole = flat.float() * scales.repeat_interleave(SCALED)[: LAYOUT.size]
    assert whole.numpy().tobytes() == sent.values.tobytes()


@given(st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES), st.sampled_from(FORMS))
def test_the_same_key_gives_the_same_bytes(key, form):
    once, again = (Update.of(form, VALUES, rounding(key)) for _ in range(2))
    assert once.to_bytes() == again.to_bytes()


@pytest.mark.parametrize(("sent", "agreed"), PAIRS)
def test_another_format_than_was_agreed_is_refused_by_name(sent, agreed):
    need = f"'a' has element type {sent.element}, {agreed.element} was agreed"
    with pytest.raises(ElementTypeMismatch, match=need):
        Update.from_bytes(update(sent).data, agreed)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shapes", "error"),
    [
        ({"a": (3, 100), "d": (313,)}, NameMismatch),
        ({"a": (100, 3), "b.ä": (), "c": (0, 4), "d": (313,)}, ShapeMismatch),
    ],
)
def test_another_layout_is_refused_in_every_format(form, shapes, error):
    layout = Layout.of(shapes)
    other = update(UpdateForm(layout, form.wire_format), VALUES[: layout.size])
    with pytest.raises(error):
        Update.from_bytes(other.data, form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", [-1, 1, 256])
def test_a_file_that_is_too_short_or_too_long_is_refused(form, change):
    data = np.resize(np.frombuffer(update(form).data, np.uint8), form.byte_length + change)
    with pytest.raises(MalformedWeights, match=f"needs {form.byte_length}"):
        Update.from_bytes(data.tobytes(), form)


def test_int8_without_its_scales_tensor_is_not_canonical():
    from common.headers import Entry, written  # noqa: PLC0415

    header = written(Entry(t.name, "I8", t.shape) for t in LAYOUT.tensors)
    with pytest.raises(MalformedWeights, match="canonical form"):
        Update.from_bytes(header + bytes(LAYOUT.size), INT8)


@pytest.mark.parametrize("form", FORMS)
def test_bytes_that_the_format_never_has_are_refused(form):
    data = bytearray(update(form).data)
    data[len(form.header) : len(form.header) + 4] = b"\xff" * 4
    with pytest.raises(MalformedEncoding):
        Update.from_bytes(bytes(data), form)


@pytest.mark.parametrize("form", FORMS)
def test_a_value_that_is_not_finite_is_refused_by_its_tensors_name(form):
    values = VALUES.copy()
    values[-1] = np.nan
    with pytest.raises(NotFinite, match="'d'"):
        update(form, values)


@pytest.mark.parametrize("form", [BFLOAT16, INT8])
def test_a_value_that_only_float32_holds_does_not_fit(form):
    values = VALUES.copy()
    values[-1] = np.finfo(np.float32).max
    with pytest.raises(DoesNotFit):
        update(form, values)
