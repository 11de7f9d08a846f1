from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.weights import Layout
from orchestrator.aggregation import (
    BLOCK,
    LIMIT,
    STEP,
    Accumulator,
    OutOfRange,
    anchored,
    check_range,
)
from tests.averaging import InMemory, mean_of

IN_RANGE = st.floats(-2047.9375, 2047.9375, width=32)
UPDATES = st.lists(st.lists(IN_RANGE, min_size=3, max_size=3), min_size=1, max_size=6)


def as_updates(rows: list[list[float]]) -> dict[str, np.ndarray]:
    return {f"gateway-{i}": np.array(row, dtype=np.float32) for i, row in enumerate(rows)}


def fed_avg(updates: dict[str, np.ndarray], weights: dict[str, int]) -> np.ndarray:
    """Return the mean of `updates` as a round makes it, weighted among everyone invited."""
    accumulator = Accumulator(next(iter(updates.values())).size, sum(weights.values()))
    for gateway, values in updates.items():
        accumulator.add(gateway, InMemory(values), weights[gateway])
    return mean_of(accumulator)


@given(IN_RANGE, st.floats(2**-20, 1.0))
@example(value=2047.9998779296875, share=1.0)
@example(value=-2047.9998779296875, share=1.0)
@example(value=1.5 * 2**-40, share=1.0)
@example(value=2.5 * 2**-40, share=1.0)
def test_the_bits_are_the_rounded_product(value, share):
    values = np.array([value], dtype=np.float32)
    product = values.astype(np.float64) * share
    slow = np.rint(product * 2.0**40).astype(np.int64)
    zero = anchored(np.zeros(1, dtype=np.float32), share, np.empty(1))
    assert (anchored(values, share, np.empty(1)) - zero).tolist() == slow.tolist()


@given(UPDATES, st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_bits(rows, random):
    updates = as_updates(rows)
    weights = {gateway: 10 * n + 1 for n, gateway in enumerate(updates)}
    shuffled = random.sample(sorted(updates), len(updates))
    there = fed_avg(updates, weights)
    back = fed_avg({gateway: updates[gateway] for gateway in shuffled}, weights)
    assert there.tobytes() == back.tobytes()


def test_float32_would_depend_on_the_order():
    values = np.array([1e8, 1.0, -1e8], dtype=np.float32)
    assert len({float((a + b) + c) for a, b, c in permutations(values)}) > 1


@given(UPDATES)
def test_the_mean_is_the_exact_one_to_the_stated_error(rows):
    updates = as_updates(rows)
    weights = {gateway: 7 * n + 1 for n, gateway in enumerate(updates)} | {"away": 20}
    total, present = sum(weights.values()), sum(weights[g] for g in updates)
    mean = fed_avg(updates, weights)
    for place in range(3):
        exact = sum(Fraction(float(updates[g][place])) * weights[g] for g in updates) / present
        bound = Fraction(2) ** -41 * len(updates) * total / present + abs(exact) / 2**50 + 2**-38
        assert abs(Fraction(float(mean[place])) - exact) <= bound


def test_the_weights_are_the_plans():
    updates = as_updates([[1.0] * 3, [4.0] * 3])
    mean = fed_avg(updates, {"gateway-0": 200, "gateway-1": 100})
    assert mean == pytest.approx([2.0] * 3, abs=STEP * 8)


def test_ten_thousand_extreme_updates_do_not_overflow():
    value = np.full(1, np.nextafter(np.float32(LIMIT), np.float32(0)))
    updates = {f"gateway-{i}": value for i in range(10_000)}
    mean = fed_avg(updates, dict.fromkeys(updates, 1))
    assert mean[0] == pytest.approx(float(value[0]), abs=1e-6)


def test_sizes_beyond_a_block_are_summed_whole():
    values = np.arange(BLOCK * 2 + 5, dtype=np.float32) / BLOCK
    mean = fed_avg({"a": values, "b": values}, {"a": 1, "b": 1})
    assert np.array_equal(mean.astype(np.float32), values)


@pytest.mark.parametrize("value", [LIMIT, -LIMIT, np.inf, np.nan])
def test_a_value_out_of_range_is_refused_by_its_tensors_name(value):
    layout = Layout.of({"a": (BLOCK,), "b": (3,)})
    values = np.zeros(layout.size, dtype=np.float32)
    values[-1] = value
    with pytest.raises(OutOfRange, match="'b'"):
        check_range(values, layout)


def test_values_just_inside_the_range_pass():
    layout = Layout.of({"a": (2,)})
    edge = np.nextafter(np.float32(LIMIT), np.float32(0))
    check_range(np.array([edge, -edge], dtype=np.float32), layout)


def test_nobody_is_summed_twice():
    accumulator = Accumulator(2, 2)
    ones = InMemory(np.ones(2, dtype=np.float32))
    accumulator.add("a", ones, 1)
    with pytest.raises(ValueError, match="in the sum already"):
        accumulator.add("a", ones, 1)
    assert accumulator.members == {"a"}


def test_one_value_is_not_spread_over_a_tensor():
    with pytest.raises(ValueError, match="1 values"):
        Accumulator(2, 1).add("a", InMemory(np.ones(1, dtype=np.float32)), 1)


def test_helpers_and_used_memory_give_the_same_bits():
    size = BLOCK * 3 + 5
    updates = np.random.default_rng(1).normal(size=(3, size)).astype(np.float32)
    plain = fed_avg(dict(enumerate(updates)), {0: 1, 1: 2, 2: 3})
    memory = np.full(size, 77, dtype=np.int64)
    with ThreadPoolExecutor(2) as helpers:
        helped = Accumulator(size, 6, memory=memory, helpers=helpers)
        for gateway, values in enumerate(updates):
            helped.add(gateway, InMemory(values), gateway + 1)
    assert helped.memory is memory
    assert mean_of(helped).tobytes() == plain.tobytes()


class Breaking(InMemory):
    """Values that cannot be read to their end."""

    def read(self, block):
        if block.start:
            raise OSError(5, "torn")
        return super().read(block)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_update_that_breaks_off_is_no_member(threads):
    values = np.ones(BLOCK * 4, dtype=np.float32)
    with ThreadPoolExecutor(2) as helpers:
        total = Accumulator(values.size, 1, helpers=helpers if threads else None)
        with pytest.raises(OSError, match="torn"):
            total.add("a", Breaking(values), 1)
    assert total.members == frozenset()


def test_memory_of_another_size_is_not_used():
    memory = np.zeros(3, dtype=np.int64)
    assert Accumulator(4, 1, memory=memory).memory.shape == (4,)
