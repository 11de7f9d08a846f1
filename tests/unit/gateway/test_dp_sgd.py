from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from common.randomness import RandomStream
from gateway.dp_sgd import add_noise, apply_dp, clip_gradients, clipped_sum
from tests.unit.gateway.toys import assert_close, values
from tests.variance import variance_pvalue

DRAWS = 1_000_000


def stream(number: int = 0) -> RandomStream:
    return RandomStream(number.to_bytes(32, "big"))


def noise_of(deviation: float, clipping_norm: float, count: int = DRAWS) -> np.ndarray:
    zeros = torch.zeros(count, dtype=torch.float64)
    how = {"noise_multiplier": deviation, "clipping_norm": clipping_norm, "divisor": 1.0}
    return add_noise(zeros, **how, generator=stream()).double().numpy()


def test_clipping_takes_no_more_than_a_millionth_from_a_long_row():
    rows = values(50, 10_000) * 100
    norms = torch.linalg.vector_norm(clip_gradients(rows, 0.3), dim=1)
    assert (norms > 0.3 * (1 - 1e-6)).all()
    assert (norms <= 0.3).all()


def test_a_short_row_keeps_its_direction_and_length():
    rows = values(50, 20) * 1e-3
    assert_close(clip_gradients(rows, 1.0), rows.double(), rtol=0, atol=2**-29)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_becomes_zero_and_stays_in_its_place(broken):
    rows = values(4, 3)
    rows[1, 2] = broken
    clipped = clip_gradients(rows, 1.0)
    assert clipped.shape == (4, 3)
    assert torch.equal(clipped[1], torch.zeros(3, dtype=torch.float64))
    assert torch.equal(clipped[[0, 2, 3]], clip_gradients(rows[[0, 2, 3]], 1.0))


def test_the_sum_does_not_depend_on_order_or_on_blocks():
    rows = values(64, 30) * 3
    whole, cut = clipped_sum([rows], 30, 0.7), clipped_sum(rows.flip(0).split(7), 30, 0.7)
    assert torch.equal(whole.total, cut.total)
    assert whole.count == pytest.approx(cut.count, abs=1e-12)


def test_apply_dp_is_the_clipped_sum_and_the_noise_for_the_same_norm():
    rows = values(10, 5)
    how = {"noise_multiplier": 2.0, "clipping_norm": 0.5, "divisor": 7.0}
    by_hand = add_noise(clip_gradients(rows, 0.5).sum(dim=0), **how, generator=stream())
    clip = partial(clipped_sum, [rows[:4], rows[4:]], 5)
    released = apply_dp(clip, **how, generator=stream())
    assert torch.equal(released.mean, by_hand)
    assert released.noisy_fraction is None


def test_an_empty_batch_is_noise_alone():
    how = {"noise_multiplier": 3.0, "clipping_norm": 0.1, "divisor": 1.0}
    noised = apply_dp(partial(clipped_sum, [], 1000), **how, generator=stream())
    assert 0.25 < float(noised.mean.std()) < 0.35


def test_the_sum_is_divided_in_the_units_of_the_gradient():
    how = {"noise_multiplier": 1e-7, "clipping_norm": 0.5, "divisor": 50.0}
    noised = add_noise(torch.tensor([0.25]), **how, generator=stream())
    assert float(noised) == pytest.approx(0.005, rel=1e-4)


@pytest.mark.parametrize(("sigma", "clipping_norm"), [(2.0, 0.5), (0.7, 3.0)])
def test_noise_has_the_stated_width(sigma, clipping_norm):
    noise = noise_of(sigma, clipping_norm)
    assert kstest(noise[:200_000], norm(scale=sigma * clipping_norm).cdf).pvalue > 1e-4
    assert variance_pvalue(noise, sigma * clipping_norm) > 1e-4


def test_the_test_of_the_width_sees_one_percent_too_little():
    assert variance_pvalue(noise_of(0.99, 1.0), 1.0) < 1e-4
