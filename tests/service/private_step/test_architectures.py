"""The sum of clipped gradients of random networks, against one backward pass for each record."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from private_step import ClippedGradients
from private_step.layers import gates
from tests.unit.private_step.architectures import MAKERS, networks
from tests.unit.private_step.naive import clipped_sum, doubled, gradients, squared_loss

SLOW = [
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.function_scoped_fixture,  # it sets the same value each time
]
FLOAT32 = 1e-6  # of the clipping norm


@pytest.fixture(autouse=True)
def _compiled_whatever_the_size(monkeypatch):
    monkeypatch.setattr(gates, "WORTH_COMPILING", 0)


@pytest.mark.parametrize("kind", sorted(MAKERS))
@given(data=st.data(), quantile=st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_the_sum_of_a_random_network_is_the_naive_one(kind, data, quantile):
    case = data.draw(networks(kind))
    exact_model, exact_batch = doubled(*case)
    rows = gradients(exact_model, squared_loss, exact_batch)
    true = rows.norm(dim=1)
    clipping_norm = float(true.quantile(quantile).clamp(min=1e-3))
    in_float64 = _sum_and_error(exact_model, exact_batch, rows, clipping_norm)
    assert in_float64 <= 1e-12
    lost_by_autograd = _autograd_error(*case, rows, clipping_norm)
    assert _sum_and_error(*case, rows, clipping_norm) <= max(FLOAT32, 4 * lost_by_autograd)


@pytest.mark.parametrize("kind", sorted(MAKERS))
@given(data=st.data(), seed=st.integers(0, 2**31))
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_the_records_of_a_unit_are_summed_before_they_are_clipped(kind, data, seed):
    model, batch = doubled(*data.draw(networks(kind)))
    steps = torch.randint(0, 2, (len(batch[0]),), generator=torch.Generator().manual_seed(seed))
    steps[0] = 0
    of_unit = steps.cumsum(0)
    rows = gradients(model, squared_loss, batch)
    whole = rows.new_zeros(int(of_unit[-1]) + 1, rows.shape[1]).index_add_(0, of_unit, rows)
    clipping_norm = float(whole.norm(dim=1).median().clamp(min=1e-3))
    clipped = ClippedGradients(model, squared_loss)
    norms = clipped.add(batch, clipping_norm, of_unit)
    expected = clipped_sum(whole, norms, clipping_norm * (1 - clipped.margin))
    assert float((clipped.total - expected).abs().max()) <= 1e-12 * clipping_norm
    assert norms.tolist() == pytest.approx(whole.norm(dim=1).tolist(), rel=2e-3, abs=1e-12)


def _sum_and_error(model, batch, rows, clipping_norm) -> float:
    """Check the norms; return the largest error of the sum over the clipping norm."""
    clipped = ClippedGradients(model, squared_loss)
    norms = clipped.add(batch, clipping_norm)
    true = rows.norm(dim=1)
    lost = (gradients(model, squared_loss, batch) - rows).norm(dim=1)  # by autograd, in this type
    assert bool((norms >= true * (1 - 1e-6) - 4 * lost).all())
    assert bool((norms <= true * 1.002 + 4 * lost + 1e-12).all())
    expected = clipped_sum(rows, norms, clipping_norm * (1 - clipped.margin))
    return float((clipped.total - expected).abs().max()) / clipping_norm


def _autograd_error(model, batch, rows, clipping_norm) -> float:
    """Return what float32 alone costs: the error of the naive sum, over the clipping norm."""
    found = gradients(model, squared_loss, batch)
    exact, rounded = (clipped_sum(each, rows.norm(dim=1), clipping_norm) for each in (rows, found))
    return float((exact - rounded).abs().max()) / clipping_norm
