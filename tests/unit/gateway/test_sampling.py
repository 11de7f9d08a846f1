from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from common.accounting import Mechanism, PrivacyEvent
from common.randomness import RandomStream
from gateway.sampling import PoissonSampler

POPULATION, RATE, BATCHES = 200, 0.1, 4000


def sizes_pvalue(sizes: np.ndarray) -> float:
    """How well batch sizes fit Binomial(POPULATION, RATE)."""
    edges = [-1, 14, 16, 18, 20, 22, 24, 26, POPULATION]
    found = np.histogram(sizes, bins=np.array(edges) + 0.5)[0]
    expected = np.diff(binom(POPULATION, RATE).cdf(edges)) * len(sizes)
    return chisquare(found, expected).pvalue


@pytest.fixture(scope="module")
def batches() -> list[np.ndarray]:
    stream = RandomStream(bytes(32))
    sampler = PoissonSampler(RATE, POPULATION)
    return [sampler.draw(stream) for _ in range(BATCHES)]


@pytest.fixture(scope="module")
def members(batches) -> np.ndarray:
    found = np.zeros((BATCHES, POPULATION))
    for batch, rows in zip(found, batches, strict=True):
        batch[rows] = 1
    return found


def test_batch_sizes_are_binomial(batches):
    assert sizes_pvalue(np.array([len(rows) for rows in batches])) > 1e-4


def test_shuffled_batches_of_one_size_are_not_binomial():
    assert sizes_pvalue(np.full(BATCHES, int(POPULATION * RATE))) < 1e-4


def test_examples_are_drawn_independently_of_one_another(members):
    together = (members.T @ members)[np.triu_indices(POPULATION, 1)]
    spread = together.std() / np.sqrt(BATCHES * RATE**2 * (1 - RATE**2))
    assert abs(together.mean() / (BATCHES * RATE**2) - 1) < 0.01
    assert abs(spread - 1) < 0.05


def test_batches_are_drawn_independently_of_one_another(members):
    again = (members[1:] * members[:-1]).sum(axis=1)
    assert abs(again.mean() / (POPULATION * RATE**2) - 1) < 0.05


def test_every_example_is_in_a_batch_at_rate_one():
    assert PoissonSampler(1.0, 5).draw(RandomStream(bytes(32))).tolist() == [0, 1, 2, 3, 4]


def test_a_batch_may_be_empty():
    assert len(PoissonSampler(1e-9, 50).draw(RandomStream(bytes(32)))) == 0
    assert len(PoissonSampler(0.5, 0).draw(RandomStream(bytes(32)))) == 0


def test_the_same_key_draws_the_same_batches():
    first, second = (PoissonSampler(0.3, 99).draw(RandomStream(b"k" * 32)) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_the_sampler_names_its_accounting_event():
    event = PoissonSampler(0.25, 10).event(noise_multiplier=1.5, steps=7)
    assert event == PrivacyEvent(1.5, 0.25, 7, Mechanism.POISSON_GAUSSIAN)
