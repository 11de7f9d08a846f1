from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.adaptive_clipping import (
    AdaptiveClipping,
    FirstNormOutside,
    TooLittleCountNoise,
    default_count_noise,
    sum_noise_multiplier,
)
from common.errors import ImpossibleEvent

BETWEEN = AdaptiveClipping(smallest=0.1, largest=10.0)
COUNT_NOISE = st.floats(0.5, 500)
SHARES = st.floats(0.001, 0.999)  # of 2 s_b, what z is


def test_the_split_gives_its_check_value():
    assert round(sum_noise_multiplier(1.0, count_noise=5.0), 5) == 1.00504


@given(COUNT_NOISE, SHARES)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_split_is_the_one_that_other_libraries_state(count_noise, share):
    total = 2 * count_noise * share
    stated = (total**-2 - (2 * count_noise) ** -2) ** -0.5
    assert sum_noise_multiplier(total, count_noise=count_noise) == pytest.approx(stated, rel=1e-9)


@given(COUNT_NOISE, SHARES)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_both_releases_together_have_the_total_noise_multiplier(count_noise, share):
    total = 2 * count_noise * share
    of_sum = sum_noise_multiplier(total, count_noise=count_noise)
    assert 1 / math.hypot(1 / of_sum, 1 / (2 * count_noise)) == pytest.approx(total, rel=1e-12)
    assert of_sum > total


def test_the_last_noise_below_the_limit_is_still_split():
    assert 0 < sum_noise_multiplier(math.nextafter(2.0, 0), count_noise=1.0) < math.inf


@pytest.mark.parametrize("total", [2.0, 3.0])
def test_a_count_that_spends_everything_is_refused(total):
    with pytest.raises(TooLittleCountNoise) as refused:
        sum_noise_multiplier(total, count_noise=1.0)
    assert f"raise the count's noise above {total / 2}, expect more units" in str(refused.value)


def test_the_counts_noise_is_a_twentieth_of_the_expected_count():
    assert default_count_noise(100) == 5.0


@pytest.mark.parametrize(
    ("fraction", "moved"), [(0.5, 1.0), (1.0, math.exp(-0.1)), (0.0, math.exp(0.1))]
)
def test_the_norm_falls_when_more_gradients_than_wanted_lie_within_it(fraction, moved):
    assert BETWEEN.next_norm(1.0, noisy_fraction=fraction) == pytest.approx(moved, rel=1e-15)


@given(st.floats(0.1, 10), st.floats(-1e6, 1e6))
def test_the_norm_moves_the_right_way_and_stays_within_its_bounds(norm, fraction):
    moved = BETWEEN.next_norm(norm, noisy_fraction=fraction)
    assert 0.1 <= moved <= 10
    assert moved <= norm if fraction > 0.5 else moved >= norm


def test_the_norm_settles_where_the_wanted_share_lies_within_it():
    norms = [10.0]
    for _ in range(200):
        norms.append(BETWEEN.next_norm(norms[-1], noisy_fraction=min(norms[-1] / 4, 1.0)))
    assert norms[-1] == pytest.approx(2.0)  # of norms spread evenly up to 4, half lie within 2


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: default_count_noise(0), "expected_count is 0, must be above 0 and finite"),
        (lambda: sum_noise_multiplier(0, count_noise=1), "noise_multiplier is 0, must be above"),
        (lambda: sum_noise_multiplier(1, count_noise=-1), "count_noise is -1, must be above 0"),
    ],
)
def test_values_that_describe_nothing_are_refused(make, sentence):
    with pytest.raises(ImpossibleEvent, match=sentence):
        make()


@pytest.mark.parametrize(
    ("changes", "named", "sentence"),
    [
        ({"smallest": 0}, ("smallest",), "greater than 0"),
        ({"smallest": 20.0}, (), "largest is 10.0, must be at least smallest = 20.0"),
        ({"largest": math.inf}, ("largest",), "finite"),
        ({"target_quantile": 1.1}, ("target_quantile",), "less than or equal to 1"),
        ({"rate": math.nan}, ("rate",), "greater than 0|finite"),
        ({"count_noise": 0}, ("count_noise",), "greater than 0"),
        ({"gamma": 0.5}, ("gamma",), "not permitted"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes, named, sentence):
    with pytest.raises(ValidationError, match=sentence) as refused:
        AdaptiveClipping(**{"smallest": 0.1, "largest": 10.0, **changes})
    assert refused.value.errors()[0]["loc"] == named


def test_the_count_has_the_noise_that_is_given_or_the_default():
    assert BETWEEN.count_noise_for(100) == 5.0
    assert BETWEEN.model_copy(update={"count_noise": 3.0}).count_noise_for(100) == 3.0


@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0])
def test_a_step_may_begin_anywhere_within_the_bounds(norm):
    BETWEEN.check(clipping_norm=norm, noise_multiplier=9.99, expected_count=100)


@pytest.mark.parametrize("norm", [0.099, 10.1])
def test_a_step_may_not_begin_outside_the_bounds(norm):
    with pytest.raises(FirstNormOutside, match=r"smallest = 0.1 and largest = 10.0") as refused:
        BETWEEN.check(clipping_norm=norm, noise_multiplier=1.0, expected_count=100)
    assert refused.value.field == "clipping_norm"


@pytest.mark.parametrize("expected", [20, 1e-300, 5e-324])
def test_noise_that_the_count_alone_uses_up_is_refused_by_name(expected):
    with pytest.raises(TooLittleCountNoise) as refused:
        BETWEEN.check(clipping_norm=1.0, noise_multiplier=2.0, expected_count=expected)
    assert refused.value.field == "noise_multiplier"
