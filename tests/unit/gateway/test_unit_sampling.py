"""Poisson over units: a document is in a batch whole or not at all, however long it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom, chi2, chisquare

from common.plan import Unit
from common.randomness import RandomStream
from gateway.charges import DataSetBinding
from gateway.local_round import BegunRun
from gateway.sampling import PoissonSampler
from tests.unit.gateway.toys import DIGEST, plan, terms

RATE, BATCHES = 0.2, 4000
SIZES = [1] * 40 + [2] * 30 + [7] * 20 + [40] * 10


def documents() -> list[tuple[int, ...]]:
    rows = iter(range(sum(SIZES)))
    return [tuple(next(rows) for _ in range(size)) for size in SIZES]


def frequencies_pvalue(drawn: np.ndarray) -> float:
    """How well the times that each unit was drawn fit one rate for all."""
    deviations = (drawn - BATCHES * RATE) / np.sqrt(BATCHES * RATE * (1 - RATE))
    return chi2(len(drawn)).sf((deviations**2).sum())


def sizes_pvalue(counts: list[int]) -> float:
    """How well the units in a batch fit Binomial(units, RATE)."""
    edges = [-1, 14, 16, 18, 20, 22, 24, 26, len(SIZES)]
    found = np.histogram(counts, bins=np.array(edges) + 0.5)[0]
    expected = np.diff(binom(len(SIZES), RATE).cdf(edges)) * len(counts)
    return chisquare(found, expected).pvalue


@pytest.fixture(scope="module")
def batches() -> list[list[tuple[int, ...]]]:
    units = documents()
    of_run = terms(DataSetBinding("letters", DIGEST), unit=Unit.DOCUMENT)
    run = BegunRun(
        of_run,
        rounds=1,
        expected_batch_size=20.0,
        sampler=PoissonSampler(RATE, len(units)),
        units=units,
        form=plan().update_form,
        initial=DIGEST,
    )
    stream = RandomStream(bytes(32))
    return [run.draw(stream) for _ in range(BATCHES)]


def test_documents_come_whole_and_at_most_once(batches):
    whole = set(documents())
    assert all(set(batch) <= whole for batch in batches)
    assert all(len(set(batch)) == len(batch) for batch in batches)


def test_every_document_is_drawn_at_the_rate_whatever_its_size(batches):
    times = Counter(unit for batch in batches for unit in batch)
    assert frequencies_pvalue(np.array([times[unit] for unit in documents()])) > 1e-4


def test_documents_drawn_by_their_sentences_would_be_noticed():
    stream = RandomStream(bytes(32))
    rates = 1 - (1 - RATE) ** np.array(SIZES)  # in the batch if any sentence is
    drawn = sum(stream.uniforms(len(SIZES)) <= rates for _ in range(BATCHES))
    assert frequencies_pvalue(drawn) < 1e-4


def test_the_number_of_documents_in_a_batch_is_binomial(batches):
    assert sizes_pvalue([len(batch) for batch in batches]) > 1e-4


def test_a_number_of_documents_that_is_always_the_same_would_be_noticed():
    assert sizes_pvalue([int(len(SIZES) * RATE)] * BATCHES) < 1e-4
