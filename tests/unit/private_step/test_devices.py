"""Everything is computed where the model lies, in float32 proper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from private_step import ClippedGradients, PrivacyOfStep, PrivateStep
from private_step.checks import check_rules
from private_step.devices import full_precision
from private_step.errors import ReducedPrecision
from tests import placing
from tests.placing import EverythingIsPlaced, Unplaced
from tests.unit.private_step.architectures import MAKERS, networks
from tests.unit.private_step.naive import generator, randomized, squared_loss

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.mark.parametrize("kind", [*sorted(MAKERS), "embedding"])
@given(data=st.data())
@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=SLOW)
def test_every_layer_makes_its_tensors_where_the_model_lies(kind, data):
    chosen = "linear" if kind == "embedding" else kind
    model, batch = data.draw(networks(chosen).filter(lambda drawn: _fits(kind, drawn)))
    records = len(batch[0])
    with EverythingIsPlaced():
        clipped = ClippedGradients(model, squared_loss)
        check_rules(clipped, squared_loss, batch)
        clipped.add(batch, 0.5)
        clipped.add(batch, 0.5, torch.arange(records) // 2)
        clipped.add_large([batch], 0.5)


def _fits(kind: str, drawn) -> bool:
    model, _ = drawn
    return kind != "embedding" or (
        isinstance(model[0], nn.Embedding) and model[0].weight.requires_grad
    )


def test_so_does_a_unit_without_a_gradient_a_step_and_its_noise():
    model = randomized(nn.Linear(6, 2))
    batch = torch.randn(4, 6, generator=generator(1))
    spoilt = batch.index_fill(0, torch.tensor([1]), torch.nan)
    with EverythingIsPlaced():
        ClippedGradients(model, squared_loss).add((spoilt,), 0.5, torch.tensor([0, 0, 1, 1]))
        privacy = PrivacyOfStep(0.5, 1.0, 4.0)
        step = PrivateStep(model, squared_loss, (batch,), privacy, torch.optim.SGD)
        step.step((batch,))
    assert bool(model.weight.isfinite().all())


def test_a_tensor_that_is_not_placed_is_found(monkeypatch):
    """The search can fail: for once it takes this file for one of the package."""
    monkeypatch.setattr(placing, "PLACED", (Path(__file__).parent,))
    with EverythingIsPlaced():
        torch.zeros(3, device="cpu")
        with pytest.raises(Unplaced, match="test_devices"):
            torch.zeros(3)


@pytest.fixture
def precision():
    """Sets how short torch may cut the factors of products; full again afterwards."""
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("shortened", ["high", "medium"])
def test_products_of_shortened_factors_are_refused(
    precision: Callable[[str], None], device, shortened
):
    precision(shortened)
    with (
        pytest.raises(ReducedPrecision, match=rf"{device}.*highest"),
        full_precision(torch.device(device)),
    ):
        pass


def test_a_model_trains_in_full_precision_or_not_at_all(precision: Callable[[str], None]):
    clipped = ClippedGradients(nn.Linear(6, 2), squared_loss)
    precision("medium")
    with pytest.raises(ReducedPrecision):
        clipped.add((torch.ones(3, 6),), 0.5)
    precision("highest")
    assert len(clipped.add((torch.ones(3, 6),), 0.5)) == 3


def test_cudnn_is_left_out_meanwhile_and_there_again_even_after_an_error():
    before = torch.backends.cudnn.enabled
    seen = []

    def fail() -> None:
        with full_precision(torch.device("cpu")):
            seen.append(torch.backends.cudnn.enabled)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [False]
    assert torch.backends.cudnn.enabled is before
