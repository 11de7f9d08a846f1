"""The noise's law, on ten million draws; and what its grid hides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, norm

from common.randomness import RandomStream
from private_step import noise
from private_step.noise import BLOCK, GRID, noised_mean, noised_multiples

DRAWS = 10_000_000
DEVIATION = 0.37
PLANTED = 0.99  # of the noise that is promised


@pytest.fixture(autouse=True, params=["compiled", "plain"], scope="module")
def loops(request):
    """Both ways of making noise have the same law."""
    enough = 0 if request.param == "compiled" else 1 << 62
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise, "WORTH_COMPILING", enough)
        yield


def draws(*, deviation: float, count: int = DRAWS, key: int = 1) -> np.ndarray:
    """Noise in the units of the promised deviation."""
    stream = RandomStream(key.to_bytes(32, "little"))
    return noised_mean(torch.zeros(count), deviation, DEVIATION, stream).double().numpy()


@pytest.fixture(scope="module")
def sample(loops) -> np.ndarray:
    return draws(deviation=DEVIATION)


@pytest.fixture(scope="module")
def planted(loops) -> np.ndarray:
    return draws(deviation=PLANTED * DEVIATION)


def in_bins(values: np.ndarray) -> float:
    """The p-value of 1,000 bins, equally likely under the promised law."""
    edges = norm.ppf(np.linspace(0, 1, 1001))
    counts = np.bincount(np.searchsorted(edges[1:-1], values), minlength=1000)
    return float(chisquare(counts).pvalue)


def test_ten_million_draws_follow_the_normal_law(sample):
    assert kstest(sample, norm.cdf).pvalue > 1e-4


def test_one_hundredth_too_little_noise_is_caught(planted):
    assert kstest(planted, norm.cdf).pvalue < 1e-4


def test_ten_million_draws_fill_a_thousand_bins_alike(sample):
    assert in_bins(sample) > 1e-4


def test_one_hundredth_too_little_noise_fills_them_otherwise(planted):
    assert in_bins(planted) < 1e-4


def test_the_tails_are_as_heavy_as_promised(sample):
    for beyond in (3.0, 4.0, 4.5):
        expected = 2 * norm.sf(beyond) * DRAWS
        found = int((np.abs(sample) > beyond).sum())
        assert abs(found - expected) < 5 * math.sqrt(expected)


def test_draws_do_not_hang_together(sample):
    half = sample[: DRAWS // 2]
    for apart in (1, 2, 32768, 65536):  # within a pair's block, and across
        lagged = float((half[:-apart] * half[apart:]).mean())
        assert abs(lagged) < 5 / math.sqrt(len(half))


@pytest.mark.parametrize("total", [0.0, 1.0, 1 / 3])
def test_every_output_lies_on_the_one_grid(total):
    stream = RandomStream(bytes(32))
    multiples = noised_multiples(torch.full((100_000,), total), 1.0, stream)
    assert torch.equal(multiples, multiples.round())
    assert set((multiples % 2).unique().tolist()) == {0.0, 1.0}


def test_no_output_tells_which_of_two_neighbours_it_came_from():
    """Of 100,000 outputs over 0, all can be reached from 1: floats miss a quarter of them."""
    stream, other = RandomStream(bytes(32)), RandomStream(bytes(31) + b"1")
    of_zero = noised_multiples(torch.zeros(100_000), 1.0, stream)
    of_one = set(noised_multiples(torch.ones(40_000_000), 1.0, other).unique().tolist())
    dense = of_zero[(of_zero - 2**16).abs() < 2**16].tolist()  # where of_one has been everywhere
    assert len(dense) > 45_000
    assert not set(dense) - of_one


def test_floats_without_a_grid_do_tell():
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    reached_from_one = (noise - 1.0) + 1.0 == noise
    assert 0.1 < float((~reached_from_one).float().mean()) < 0.6


def test_a_sum_far_above_the_noise_is_kept():
    far = torch.tensor([1e9, -1e9])
    found = noised_multiples(far, 1.0, RandomStream(bytes(32))) * GRID
    assert found.tolist() == pytest.approx([1e9, -1e9], abs=10)


def test_the_mean_is_the_multiples_over_the_constant():
    sums = torch.linspace(-5, 5, 200_001)
    stream = RandomStream(bytes(32))
    blocks = [noised_multiples(piece, 0.5, stream) for piece in sums.split(BLOCK)]
    mean = noised_mean(sums, 0.5, 8.0, RandomStream(bytes(32)))
    expected = (torch.cat(blocks) * (0.5 * GRID / 8.0)).float()
    # before they go to the grid one rounds to 24 bits, one to 53: neighbours on it, seldom
    assert float((mean != expected).float().mean()) < 0.03
    assert float((mean - expected).abs().max()) <= 1.01 * 0.5 * GRID / 8.0


@pytest.mark.parametrize("count", [1, 70_001, 300_001])
def test_a_sum_gives_its_place_to_the_same_mean(count):
    sums = torch.linspace(-5, 5, count)
    expected = noised_mean(sums, 0.5, 8.0, RandomStream(bytes(32)))
    assert float(sums[0]) == -5  # as it was
    found = noised_mean(sums, 0.5, 8.0, RandomStream(bytes(32)), out=sums)
    assert found is sums
    assert torch.equal(found, expected)


def test_the_same_key_gives_the_same_noise_and_the_next_part_another():
    one, other = RandomStream(bytes(32)), RandomStream(bytes(32))
    first = noised_multiples(torch.zeros(1001), 1.0, one)
    assert torch.equal(first, noised_multiples(torch.zeros(1001), 1.0, other))
    assert not torch.equal(first, noised_multiples(torch.zeros(1001), 1.0, one))


@pytest.mark.parametrize("count", [1, 2, 65_535, 65_536, 65_537, 98_305, 300_000])
def test_noise_depends_on_the_place_and_not_on_the_threads(count):
    found, threads = [], torch.get_num_threads()
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        found.append(noised_mean(torch.zeros(count), 1.0, 1.0, RandomStream(bytes(32))))
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not bool((found[0] == 0).all())
