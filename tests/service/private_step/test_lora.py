"""Low-rank adapters as `peft` builds them: trained privately, and the frozen rest costs nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.private_step.models import (
    LORA_RANK,
    TAGS,
    Encoder,
    PostNormLayer,
    Size,
    with_fixed_weights,
    with_lora,
)
from private_step import ClippedGradients
from private_step.errors import UnsupportedModule
from tests.unit.private_step.naive import clipped_sum, doubled, generator, gradients, squared_loss

SIZE = Size(layers=2, width=16, heads=2, inner=32, vocabulary=50, tokens=6)
BATCH = (torch.randint(0, 50, (5, 6), generator=generator(1)),)
ADAPTERS = SIZE.layers * 2 * 2 * SIZE.width * LORA_RANK  # query and value, two matrices each
HEAD = SIZE.width * TAGS + TAGS
FLOAT32 = 1e-6  # of the clipping norm


def encoder() -> Encoder:
    return Encoder(SIZE, PostNormLayer)


def injected() -> nn.Module:
    """Adapters put into a module of one's own."""
    return with_fixed_weights(with_lora(encoder()))


def wrapped() -> nn.Module:
    """Adapters around a module, with the head as one more."""
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 (seconds, in every worker)

    config = LoraConfig(
        r=LORA_RANK, target_modules=["query", "value"], modules_to_save=["head"], lora_dropout=0.0
    )
    return with_fixed_weights(get_peft_model(encoder(), config))


@pytest.mark.parametrize("build", [injected, wrapped])
def test_the_clipped_sum_of_adapters_is_the_naive_one(build):
    model = build()
    exact_model, exact_batch = doubled(model, BATCH)
    rows = gradients(exact_model, squared_loss, exact_batch)
    true = rows.norm(dim=1)
    clipping_norm = float(true.median())
    clipped = ClippedGradients(model, squared_loss)
    norms = clipped.add(BATCH, clipping_norm)
    expected = clipped_sum(rows, norms, clipping_norm * (1 - clipped.margin))
    assert float((clipped.total - expected).abs().max()) <= FLOAT32 * clipping_norm
    assert norms.tolist() == pytest.approx(true.tolist(), rel=2e-3)
    assert bool((norms >= true * (1 - 1e-6)).all())


@pytest.mark.parametrize("build", [injected, wrapped])
def test_only_adapters_and_head_are_trained(build):
    clipped = ClippedGradients(build(), squared_loss)
    assert clipped.parameters.numel() == ADAPTERS + HEAD


def test_there_is_no_graph_below_the_first_adapter_and_frozen_weights_stay():
    model = injected()
    before = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    in_graph = {}

    def note(name):
        def hook(_module, _inputs, output) -> None:
            in_graph[name] = output.requires_grad

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.Linear)) and "lora" not in name:
            module.register_forward_hook(note(name))
    ClippedGradients(model, squared_loss).add(BATCH, 1.0)
    outside = {name for name, inside in in_graph.items() if not inside}
    first = {f"layers.0.{each}" for each in ("query.base_layer", "key", "value.base_layer")}
    assert outside == {"tokens", "positions"} | first
    for name, p in model.named_parameters():
        if name in before:
            assert p.grad is None
            assert torch.equal(p, before[name])


def test_adapters_with_magnitudes_of_their_own_are_refused_by_name():
    model = with_lora(encoder(), use_dora=True)
    with pytest.raises(UnsupportedModule, match=r"lora_magnitude_vector.*DoraLinearLayer"):
        ClippedGradients(model, squared_loss)
