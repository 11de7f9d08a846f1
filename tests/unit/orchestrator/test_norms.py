"""What an update's norm may be, and what it is scaled by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.bad_updates import PLAIN, NormMode, UpdateNorm
from orchestrator.aggregation import Accumulator
from orchestrator.norms import (
    NormTooLarge,
    check_norm,
    factor,
    norm_bound,
    remembered,
)
from tests.averaging import InMemory, mean_of

MEDIAN = UpdateNorm()
FIXED = UpdateNorm(mode=NormMode.FIXED, bound=2.5)
POSITIVE = st.floats(1e-6, 1e6)


def test_the_bound_is_three_times_the_median_of_what_is_known():
    assert norm_bound(MEDIAN, {"a": 1.0, "b": 900.0, "c": 3.0}) == 9.0


def test_a_plan_may_have_it_tighter():
    assert norm_bound(UpdateNorm(factor=1.5), {"a": 1.0, "b": 2.0, "c": 9.0}) == 3.0


def test_before_the_first_published_round_there_is_none():
    assert norm_bound(MEDIAN, {}) is None


def test_updates_of_nothing_but_zeros_bound_nobody():
    assert norm_bound(MEDIAN, {"a": 0.0, "b": 0.0, "c": 4.0}) is None


def test_a_plan_may_fix_it_or_have_none():
    assert norm_bound(FIXED, {}) == norm_bound(FIXED, {"a": 9.0}) == 2.5
    assert norm_bound(PLAIN, {"a": 9.0}) is None


@given(st.dictionaries(st.text(), POSITIVE, min_size=1), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_move_it(norms, random):
    shuffled = dict(random.sample(list(norms.items()), len(norms)))
    bounds = [norm_bound(MEDIAN, remembered({}, each, None)) for each in (norms, shuffled)]
    assert bounds[0] == bounds[1]


def test_what_was_clipped_raises_the_next_bound_no_further_than_its_own():
    assert remembered({}, {"a": 1.0, "b": 50.0}, 6.0) == {"a": 1.0, "b": 6.0}


def test_a_gateways_newest_norm_is_the_one_that_counts():
    assert remembered({"a": 1.0, "b": 2.0}, {"a": 3.0}, None) == {"a": 3.0, "b": 2.0}


@given(st.integers(1, 50))
def test_the_few_that_always_come_first_do_not_pull_the_bound_down(rounds):
    known = {"a": 4.0, "b": 5.0, "c": 6.0, "tiny": 5.0}
    for _ in range(rounds):
        known = remembered(known, {"tiny": 1e-9}, norm_bound(MEDIAN, known))
    assert norm_bound(MEDIAN, known) == 3 * 4.5


@given(POSITIVE, POSITIVE)
def test_what_is_scaled_down_comes_to_the_bound(norm, bound):
    assert factor(norm, bound) * norm == pytest.approx(min(norm, bound))


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_what_is_within_the_bound_keeps_every_bit(scale):
    values = np.random.default_rng(0).normal(size=50).astype(np.float32)
    norm = float(np.linalg.norm(values))
    plain, clipped = Accumulator(50, 7), Accumulator(50, 7)
    plain.add("a", InMemory(values), 3)
    clipped.add("a", InMemory(values), 3, factor(norm * scale, norm))
    assert mean_of(plain).tobytes() == mean_of(clipped).tobytes()


def test_the_mean_of_clipped_updates_is_that_of_the_scaled_ones():
    values = np.random.default_rng(0).normal(size=(2, 50))
    total = Accumulator(50, 4)
    for gateway, each in enumerate(values.astype(np.float32)):
        total.add(gateway, InMemory(each), 2 * gateway + 1, (0.25, 1.0)[gateway])
    expected = (0.25 * values[0] + 3 * values[1]) / 4
    assert mean_of(total) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("norm", "bound"), [(10.0, 1.0), (None, 1.0), (1e9, None)])
def test_up_to_ten_times_the_bound_nothing_is_refused(norm, bound):
    check_norm(norm, bound)


def test_beyond_ten_times_the_bound_it_is_refused():
    with pytest.raises(NormTooLarge, match="10 times"):
        check_norm(np.nextafter(10.0, 11.0), 1.0)
