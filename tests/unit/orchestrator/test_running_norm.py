"""The norm of an update: the same bits however it is cut, and the exact one to the last digits."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.randomness import KEY_BYTES, RandomStream
from common.update_form import Update, UpdateForm
from common.weights import Layout
from common.wire_formats import WireFormat
from orchestrator.running_norm import BLOCK, TOGETHER
from orchestrator.running_values import RunningValues

FORMATS = st.sampled_from(list(WireFormat))
SIZES = st.sampled_from([1, 7, 255, 256, 600, BLOCK - 1, BLOCK, BLOCK + 1, 6 * BLOCK + 300])


def update(wire_format: WireFormat, size: int, scale: float = 1e-2) -> Update:
    values = np.random.default_rng(size).normal(scale=scale, size=size).astype(np.float32)
    form = UpdateForm(Layout.of({"w": (size,)}), wire_format)
    return Update.of(form, values, RandomStream(bytes(KEY_BYTES)))


def norm(sent: Update, cuts: list[float]) -> float | None:
    """Return what is seen of an update that comes in pieces."""
    seen, data = RunningValues(sent.form), sent.encoded
    edges = [0, *sorted(int(cut * data.size) for cut in cuts), data.size]
    for start, stop in pairwise(edges):
        seen.see(data.data[start:stop])
    return seen.norm()


@given(FORMATS, SIZES, st.lists(st.floats(0, 1), max_size=6))
def test_any_pieces_give_the_same_bits(wire_format, size, cuts):
    sent = update(wire_format, size)
    whole = norm(sent, [])
    assert whole is not None
    assert norm(sent, cuts) == whole


@pytest.mark.parametrize("scale", [1e-30, 1e-2, 300.0])
@pytest.mark.parametrize("wire_format", WireFormat)
def test_it_is_the_norm_of_what_the_bytes_stand_for(wire_format, scale):
    sent = update(wire_format, 2 * BLOCK + 300, scale)
    exact = math.sqrt(math.fsum(float(value) ** 2 for value in sent.values))
    error = 2.0**-24 if wire_format is WireFormat.INT8 else 2.0**-48
    assert abs(norm(sent, [0.3]) - exact) <= error * exact


def test_the_order_in_which_squares_are_added_is_written_down():
    sent = update(WireFormat.FLOAT32, (TOGETHER + 2) * BLOCK + 300)
    edges = range(BLOCK, sent.values.size, BLOCK)
    blocks = np.split(sent.values.astype(np.float64) ** 2, edges)
    total = 0.0
    for block in blocks:
        total += pairwise_sum(block)
    assert norm(sent, []) == norm(sent, [0.1, 0.7]) == math.sqrt(total)


def test_an_update_that_waits_for_its_next_bytes_keeps_at_most_a_block():
    sent, many = update(WireFormat.FLOAT32, 5 * BLOCK + 100), 20
    tracemalloc.start()
    try:
        seen = [RunningValues(sent.form) for _ in range(many)]
        for each in seen:
            each.see(sent.encoded.data)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < many * 4 * BLOCK


def pairwise_sum(values: np.ndarray) -> float:
    """Return numpy's sum as its source has it: eight at a time, halves of what is longer."""
    if values.size > 128:
        half = values.size // 2 - values.size // 2 % 8
        return pairwise_sum(values[:half]) + pairwise_sum(values[half:])
    whole = values.size - values.size % 8
    lanes = [0.0] * 8
    for start in range(0, whole, 8):
        for lane in range(8):
            lanes[lane] += float(values[start + lane])
    a, b, c, d, e, f, g, h = lanes
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for value in values[whole:]:
        total += float(value)
    return total
