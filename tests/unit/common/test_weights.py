"""Weights: canonical bytes, and every way in which bytes can fail to be them."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.weights import (
    ElementTypeMismatch,
    Layout,
    MalformedWeights,
    NameMismatch,
    NotFinite,
    ShapeMismatch,
    Weights,
)

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)
ARRAYS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=4),
    elements=st.floats(-1e3, 1e3, width=32),
)


@pytest.fixture
def weights() -> Weights:
    """A matrix and a vector."""
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    return Weights.from_arrays({"w": matrix, "b": np.ones(3, np.float32)})


@given(st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), ARRAYS, min_size=1))
def test_the_bytes_are_what_safetensors_reads(arrays):
    weights = Weights.from_arrays(arrays)
    read = safetensors.numpy.load(weights.to_bytes())
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    again = Weights.from_bytes(weights.to_bytes(), weights.layout)
    assert again.digest == weights.digest
    assert all(np.array_equal(again.arrays()[name], arrays[name]) for name in arrays)


def test_equal_weights_have_equal_bytes_in_any_order_of_names(weights):
    turned = Weights.from_arrays(dict(reversed(weights.arrays().items())))
    assert turned.to_bytes() == weights.to_bytes()
    assert turned.digest == weights.digest


def test_a_layout_knows_its_length(weights):
    assert weights.layout.byte_length == len(weights.to_bytes())


def _with_header(weights: Weights, change) -> bytes:
    data = weights.to_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def test_another_shape_is_refused_by_name(weights):
    data = _with_header(weights, lambda h: h["w"].update(shape=[3, 2]))
    with pytest.raises(ShapeMismatch, match=r"'w' has shape \(3, 2\).*needs \(2, 3\)"):
        Weights.from_bytes(data, weights.layout)


def test_a_shape_that_would_broadcast_is_refused(weights):
    small = Weights.from_arrays({"w": weights.arrays()["w"], "b": np.ones(1, np.float32)})
    with pytest.raises(ShapeMismatch, match="'b'"):
        Weights.from_bytes(small.to_bytes(), weights.layout)


def test_another_element_type_is_refused(weights):
    data = _with_header(weights, lambda h: h["b"].update(dtype="F16"))
    with pytest.raises(ElementTypeMismatch, match="'b' has element type F16"):
        Weights.from_bytes(data, weights.layout)


def test_missing_and_unexpected_names_are_named(weights):
    data = _with_header(weights, lambda h: h.update(extra=h.pop("b")))
    with pytest.raises(NameMismatch, match=r"missing: \['b'\].*\['extra'\]"):
        Weights.from_bytes(data, weights.layout)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_tensor(weights, value):
    arrays = {name: array.copy() for name, array in weights.arrays().items()}
    arrays["w"][1, 2] = value
    with pytest.raises(NotFinite, match="'w'"):
        Weights.from_bytes(Weights.from_arrays(arrays).to_bytes(), weights.layout)


@pytest.mark.parametrize("cut", [0, 4, 12, -1])
def test_cut_bytes_are_refused(weights, cut):
    with pytest.raises(MalformedWeights):
        Weights.from_bytes(weights.to_bytes()[:cut], weights.layout)


def test_bytes_after_the_end_are_refused(weights):
    with pytest.raises(MalformedWeights, match="bytes, the run's model needs"):
        Weights.from_bytes(weights.to_bytes() + b"\0", weights.layout)


def test_metadata_is_not_canonical(weights):
    data = _with_header(weights, lambda h: h.update({"__metadata__": {"a": "b"}}))
    with pytest.raises(MalformedWeights, match="canonical"):
        Weights.from_bytes(data, weights.layout)


@given(st.binary(max_size=64))
def test_no_bytes_get_past_the_checks(data):
    with pytest.raises(MalformedWeights):
        Weights.from_bytes(data, Layout.of({"w": (2,)}))


def test_a_vector_of_another_length_or_type_is_no_weights():
    with pytest.raises(MalformedWeights, match="need float32 of shape"):
        Weights(Layout.of({"w": (2,)}), np.zeros(3, np.float32))


def test_an_unsorted_or_empty_layout_is_refused():
    with pytest.raises(ValueError, match="sorted"):
        Layout.model_validate({"tensors": [{"name": "b", "shape": []}, {"name": "a", "shape": []}]})
    with pytest.raises(ValueError, match="values in all"):
        Layout.of({"w": (0,)})


def test_a_position_past_the_end_has_no_tensor():
    with pytest.raises(IndexError, match="past the last"):
        Layout.of({"w": (2,)}).tensor_at(2)
