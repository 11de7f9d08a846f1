"""A step that also releases how many units lay within the clipping norm: what it costs, exactly."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from common.adaptive_clipping import TooLittleCountNoise, sum_noise_multiplier
from common.randomness import RandomStream
from gateway.dp_sgd import ClippedSum, add_noise, apply_dp, clipped_sum, count_within
from private_step.noise import GRID, noised_mean
from tests.unit.gateway.toys import values
from tests.variance import variance_pvalue

PARAMETERS, DRAWS = 200_000, 4000
EXPECTED = 8.0  # units in a batch
QUIET = {"noise_multiplier": 1e-9, "count_noise": 1e-8, "divisor": 4.0}


def stream() -> RandomStream:
    return RandomStream(bytes(32))


def rows_of(*norms: float) -> torch.Tensor:
    """Gradients of these norms, each of two values."""
    return torch.tensor(norms)[:, None] * torch.tensor([0.6, 0.8])


def release(clip, generator: RandomStream | None = None, **how):
    usual = {"noise_multiplier": 2.0, "clipping_norm": 0.5, "divisor": EXPECTED, "count_noise": 1.2}
    return apply_dp(clip, **(usual | how), generator=generator or stream())


def test_units_within_add_half_to_the_count_and_units_outside_take_it():
    norms = torch.tensor([0.0, 0.3, 0.43, 0.57, 2.0, math.inf, math.nan], dtype=torch.float64)
    assert count_within(norms, 0.5) == (3 - 4) / 2
    assert count_within(norms[:0], 0.5) == 0


@given(st.floats(0, 1e9), st.floats(1e-6, 1e6), st.floats(1 - 1e-3, 1 + 1e-3))
def test_what_a_unit_adds_is_at_most_half_and_hardly_moves_with_its_norm(norm, clipping, company):
    once = count_within(torch.tensor([norm], dtype=torch.float64), clipping)
    again = count_within(torch.tensor([norm * company], dtype=torch.float64), clipping)
    assert abs(once) <= 0.5
    assert abs(once - again) <= 4 * 1.125 * abs(company - 1) / min(1.0, company) + 1e-9


@given(
    seed=st.integers(0, 2**31),
    clipping_norm=st.floats(1e-3, 1e3),
    spread=st.sampled_from([0.0, 0.05, 3.0]),
    broken=st.sampled_from([None, math.nan, math.inf]),
)
@settings(max_examples=200, deadline=None, derandomize=True)  # 5,000 removals
def test_removing_any_unit_moves_the_count_by_half_and_the_sum_by_the_clipping_norm(
    seed, clipping_norm, spread, broken
):
    rows = torch.nn.functional.normalize(values(25, 17, seed=seed), dim=1).double()
    rows *= clipping_norm * torch.exp(spread * values(25, 1, seed=seed + 1))
    if broken is not None:
        rows[3, 2] = broken
    whole = clipped_sum([rows], 17, clipping_norm)
    for left_out in range(25):
        others = clipped_sum([rows[:left_out], rows[left_out + 1 :]], 17, clipping_norm)
        assert abs(whole.count - others.count) <= 0.5 + 1e-12
        moved = whole.total - others.total
        assert math.hypot(*moved.tolist()) <= clipping_norm
        count_noise, sigma = 1.2, 2.0
        of_sum = sum_noise_multiplier(sigma, count_noise=count_noise) * clipping_norm
        both = math.hypot(*(moved / of_sum).tolist(), (whole.count - others.count) / count_noise)
        assert both <= 1 / sigma * (1 + 1e-9)


def test_a_gradient_that_is_not_finite_lies_outside_and_adds_nothing():
    rows = rows_of(0.1, math.nan, math.inf, 9.0)
    found = clipped_sum([rows], 2, 1.0)
    assert found.count == (1 - 3) / 2
    assert torch.equal(found.total, clipped_sum([rows[[0, 3]]], 2, 1.0).total)


def test_the_sum_is_noised_by_what_the_count_leaves_of_the_budget():
    zeros = ClippedSum(torch.zeros(PARAMETERS, dtype=torch.float64), 0.0)
    found = release(lambda _: zeros).mean
    raised = 2.0 / math.sqrt(1 - (2.0 / 2.4) ** 2)  # 3.62: the count's share is 1/2.4
    how = {"noise_multiplier": sum_noise_multiplier(2.0, count_noise=1.2), "clipping_norm": 0.5}
    by_hand = add_noise(zeros.total, **how, divisor=EXPECTED, generator=stream())
    assert torch.equal(found, by_hand)
    noise = found.double().numpy() * EXPECTED / 0.5
    assert variance_pvalue(noise, raised) > 1e-4
    assert variance_pvalue(noise, raised * 0.98) < 1e-4  # the test can fail


def test_the_counts_noise_is_normal_of_the_stated_width_and_apart_from_the_sums():
    going_on = stream()
    steps = [release(lambda _: ClippedSum(torch.zeros(1), 3.0), going_on) for _ in range(DRAWS)]
    counts = np.array([(step.noisy_fraction - 0.5) * EXPECTED - 3.0 for step in steps])
    sums = np.array([float(step.mean) for step in steps])
    assert kstest(counts, norm(scale=1.2).cdf).pvalue > 1e-4
    assert variance_pvalue(counts, 1.2) > 1e-4
    assert variance_pvalue(counts, 1.32) < 1e-4  # the test can fail
    assert abs(np.corrcoef(counts, sums)[0, 1]) < 4 / math.sqrt(DRAWS)
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 4 / math.sqrt(DRAWS)


def test_sum_and_count_take_their_noise_one_after_the_other_from_one_stream():
    batch = ClippedSum(values(1001).double(), 1.5)
    going_on, by_hand = stream(), stream()
    for _ in range(3):
        found = release(lambda _: batch, going_on)
        raised = sum_noise_multiplier(2.0, count_noise=1.2)
        how = {"noise_multiplier": raised, "clipping_norm": 0.5, "divisor": EXPECTED}
        assert torch.equal(found.mean, add_noise(batch.total, **how, generator=by_hand))
        count = torch.tensor([1.5], dtype=torch.float64)
        assert found.noisy_fraction == 0.5 + float(noised_mean(count, 1.2, EXPECTED, by_hand))
    assert going_on.read(16) == by_hand.read(16)


def test_the_count_leaves_on_a_grid_of_its_noise():
    for count in (0.0, 0.3, 1.5):
        batch = ClippedSum(torch.zeros(1), count)
        found = release(lambda _, batch=batch: batch, count_noise=2.0, noise_multiplier=1.0)
        multiples = (found.noisy_fraction - 0.5) * EXPECTED / (2.0 * GRID)
        assert multiples == round(multiples)


@pytest.mark.parametrize(
    ("norms", "fraction"),
    [
        ((0.1, 0.2, 0.3, 9.0), 0.75),
        ((0.1, 0.2, 0.3), 0.875),  # a batch of fewer than expected: only constants divide
        ((9.0, 9.0), 0.25),
        ((), 0.5),
    ],
)
def test_the_fraction_is_the_count_over_what_is_expected(norms, fraction):
    clip = partial(clipped_sum, [rows_of(*norms)] if norms else [], 2)
    assert release(clip, **QUIET).noisy_fraction == pytest.approx(fraction, abs=1e-6)


def test_a_count_that_cannot_be_paid_is_refused_before_a_gradient_is_taken():
    with pytest.raises(TooLittleCountNoise):
        release(pytest.fail, count_noise=1.0)
