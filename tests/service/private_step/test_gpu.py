"""The same sums, the same noise, the same steps on a GPU as on the processor."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from common.randomness import RandomStream
from private_step import ClippedGradients, PrivacyOfStep, PrivateStep
from private_step.devices import moved
from private_step.noise import noised_mean, noised_multiples
from tests.gpu import DEVICES
from tests.unit.private_step.architectures import MAKERS, networks
from tests.unit.private_step.naive import doubled, generator, randomized, squared_loss

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
FLOAT32, FLOAT64 = 1e-5, 1e-10  # of the clipping norm


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", sorted(MAKERS))
@given(data=st.data(), by_twos=st.booleans())
@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_the_sum_is_that_of_the_processor(device, kind, data, by_twos):
    model, batch = data.draw(networks(kind))
    of_unit = torch.arange(len(batch[0])) // 2 if by_twos else None
    _, norms = _sum(*doubled(model, batch), of_unit, "cpu")
    bound = float(norms.median().clamp(min=1e-3))
    for case, tolerance in (((model, batch), FLOAT32), (doubled(model, batch), FLOAT64)):
        expected, _ = _sum(*doubled(model, batch), of_unit, "cpu", bound)
        found, raised = _sum(*case, of_unit, device, bound)
        assert float((found - expected).abs().max()) <= tolerance * bound
        assert bool((raised >= norms * (1 - 1e-5) - 1e-5 * bound).all())


def _sum(model, batch, of_unit, device, bound=1.0):
    """Return the clipped sum and the units' norms, taken on `device`, in float64."""
    there = copy.deepcopy(model).to(device)
    clipped = ClippedGradients(there, squared_loss)
    norms = clipped.add(moved(batch, torch.device(device)), bound, of_unit)
    assert clipped.total.device.type == norms.device.type == device
    return clipped.total.double().cpu(), norms.cpu()


@pytest.mark.parametrize("device", DEVICES)
def test_a_unit_of_many_records_and_one_without_a_gradient_are_clipped_there_too(device):
    model = randomized(nn.LSTM(6, 4, batch_first=True)).eval()
    x = torch.randn(6, 5, 6, generator=generator(2))
    x[3] = torch.nan
    totals = []
    for where in ("cpu", device):
        clipped = ClippedGradients(copy.deepcopy(model).to(where), squared_loss)
        batch = x.to(where)
        norms = clipped.add((batch,), 0.3, torch.tensor([0, 0, 1, 1, 2, 3]))
        assert norms.isfinite().tolist() == [True, False, True, True]
        clipped.add_large([(batch[:3],), (batch[4:],)], 0.3)
        totals.append(clipped.total.cpu())
    assert torch.allclose(*totals, rtol=0, atol=FLOAT32 * 0.3)


@pytest.mark.parametrize("device", DEVICES)
def test_noise_is_the_same_to_the_last_bit_and_lies_on_the_same_grid(device):
    total = torch.randn(100_001, generator=generator(3))
    there, here = (
        noised_multiples(total.to(where), 0.7, RandomStream(b"n" * 32)) for where in (device, "cpu")
    )
    assert there.device.type == device
    assert torch.equal(there.cpu(), here)
    assert torch.equal(there, there.round())
    means = [
        noised_mean(total.to(w), 0.7, 9.0, RandomStream(b"n" * 32)).cpu() for w in (device, "cpu")
    ]
    assert torch.equal(*means)


@pytest.mark.parametrize("device", DEVICES)
def test_a_private_step_moves_the_model_where_it_lies(device):
    trained = []
    batch = (torch.randn(200, 6, generator=generator(4)),)
    for where in ("cpu", device):
        model = randomized(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))).to(where)
        step = PrivateStep(
            model,
            squared_loss,
            (batch[0][:3],),
            PrivacyOfStep(0.5, 1.0, 200.0),
            lambda flat: torch.optim.SGD(flat, lr=0.1),
            stream=RandomStream(b"s" * 32),
        )
        for _ in range(3):
            step.step(batch)
        assert model[0].weight.device.type == where
        trained.append(model[2].weight.detach().cpu())
    assert torch.allclose(*trained, rtol=0, atol=1e-5)
