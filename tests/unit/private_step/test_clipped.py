"""The clipped sum: what one unit can do to it, and what stays as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from private_step import ClippedGradients, affine, by_vmap, grams, per_record_rule
from private_step.checks import check_rules
from private_step.errors import ChangedInPlace, NormIncomplete
from tests.unit.private_step.naive import (
    clipped_sum,
    generator,
    gradients,
    randomized,
    squared_loss,
)

CLIPPING_NORM = 0.7


class Scale(nn.Module):
    """A plain parameter, with a rule below."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return x * self.scale


class Shift(nn.Module):
    """A plain parameter, left to torch.func."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(6))

    def forward(self, x):
        return torch.tanh(x + self.shift)


@per_record_rule(Scale)
def _scale_gradients(module, inputs, gradient):
    return {"scale": (inputs[0] * gradient).sum(dim=1)}


per_record_rule(Shift)(by_vmap)


def weighted_outputs(model, batch):
    """A loss whose gradient by the outputs is the batch's second tensor."""
    x, above = batch
    return (model(x) * above).flatten(1).sum(dim=1)


def cancelling(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A unit whose tokens' gradients cancel, but for ten-thousandths."""
    noise = generator(seed)
    x = torch.randn(1, 1, 64, generator=noise).repeat(1, 32, 1)
    x = x + 1e-4 * torch.randn(x.shape, generator=noise)
    above = torch.randn(1, 1, 64, generator=noise).repeat(1, 32, 1)
    above[:, 1::2] *= -1
    return 1e4 * x, above


@pytest.fixture(params=["kernels", "torch"])
def _by_either(request, monkeypatch):
    monkeypatch.setattr(grams, "_is_worth_it", lambda *_: request.param == "kernels")


@pytest.mark.usefixtures("_by_either")
def test_units_built_for_cancellation_add_no_more_than_the_clipping_norm():
    assert max(_added_by_cancelling(seed) for seed in range(40)) <= CLIPPING_NORM


@pytest.mark.usefixtures("_by_either")
def test_without_the_slack_for_cancellation_they_would(monkeypatch):
    monkeypatch.setattr(grams, "UNIT_ROUNDOFF", 0.0)
    assert max(_added_by_cancelling(seed) for seed in range(40)) > 2 * CLIPPING_NORM


def _added_by_cancelling(seed: int) -> float:
    x, above = cancelling(seed)
    clipped = ClippedGradients(nn.Linear(64, 64, bias=False), weighted_outputs)
    clipped.add((x, above), CLIPPING_NORM)
    return float(clipped.total.double().norm())


def test_a_repeated_id_counts_with_all_its_places():
    model = randomized(nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 2)))
    batch = (torch.tensor([[3, 3, 3, 3], [1, 2, 3, 4]]),)
    rows = gradients(model, squared_loss, batch)
    clipped = ClippedGradients(model, squared_loss)
    norms = clipped.add(batch, CLIPPING_NORM)
    assert norms.tolist() == pytest.approx(rows.norm(dim=1).tolist(), rel=1e-3)


def test_a_rule_of_ones_own_joins_the_one_norm():
    model = randomized(nn.Sequential(nn.Linear(6, 6), Scale(), Shift(), nn.Linear(6, 2)))
    batch = (torch.randn(5, 3, 6, generator=generator(3)),)
    rows = gradients(model, squared_loss, batch)
    clipped = ClippedGradients(model, squared_loss)
    norms = clipped.add(batch, CLIPPING_NORM)
    expected = clipped_sum(rows, norms, CLIPPING_NORM * (1 - clipped.margin))
    assert torch.allclose(clipped.total.double(), expected, atol=1e-6)
    assert norms.tolist() == pytest.approx(rows.norm(dim=1).tolist(), rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_adds_nothing_and_spoils_nothing(bad):
    model = randomized(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)))
    x = torch.randn(4, 3, 6, generator=generator(4))
    with_bad = x.clone()
    with_bad[2, 1, 0] = bad
    spoilt, others = (ClippedGradients(model, squared_loss) for _ in range(2))
    norms = spoilt.add((with_bad,), CLIPPING_NORM)
    others.add((x[[0, 1, 3]],), CLIPPING_NORM)
    assert torch.equal(spoilt.total, others.total)
    assert norms.isfinite().tolist() == [True, True, False, True]


def test_a_unit_that_is_not_finite_goes_with_all_its_records():
    model = randomized(nn.Linear(6, 2))
    x = torch.randn(4, 3, 6, generator=generator(4))
    x[1, 0, 0] = math.nan
    spoilt, others = (ClippedGradients(model, squared_loss) for _ in range(2))
    spoilt.add((x,), CLIPPING_NORM, torch.tensor([0, 0, 1, 2]))
    others.add((x[2:],), CLIPPING_NORM)
    assert torch.equal(spoilt.total, others.total)


def test_an_empty_batch_adds_nothing():
    clipped = ClippedGradients(nn.Linear(6, 2), squared_loss)
    assert len(clipped.add((torch.zeros(0, 3, 6),), CLIPPING_NORM)) == 0
    assert not bool(clipped.total.any())


def test_micro_batches_add_to_the_same_sum():
    model = randomized(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)))
    x = torch.randn(7, 3, 6, generator=generator(5))
    whole, pieces = (ClippedGradients(model, squared_loss) for _ in range(2))
    whole.add((x,), CLIPPING_NORM)
    for piece in x.split(3):
        pieces.add((piece,), CLIPPING_NORM)
    assert torch.allclose(whole.total, pieces.total, rtol=0, atol=1e-6 * CLIPPING_NORM)


def test_the_model_stays_a_plain_module():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2))
    before = [p.clone() for p in model.parameters()]
    x = torch.randn(4, 6, generator=generator(6))
    expected = model(x)
    ClippedGradients(model, squared_loss).add((x,), CLIPPING_NORM)
    assert torch.equal(model(x), expected)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_parameters_can_be_exchanged_for_a_flat_vector():
    model = nn.Linear(2, 1)
    clipped = ClippedGradients(model, squared_loss)
    clipped.use(torch.tensor([5.0, 1.0, 2.0]))  # by name: the bias, then the weight
    assert model(torch.tensor([[10.0, 100.0]])).item() == 215.0


def test_frozen_layers_below_the_first_trained_one_run_without_a_graph():
    seen = []
    model = nn.Sequential(nn.Linear(6, 5).requires_grad_(False), nn.Linear(5, 2))
    model[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    ClippedGradients(model, squared_loss).add((torch.zeros(3, 6),), CLIPPING_NORM)
    assert seen[0].grad_fn is None


def test_memory_of_an_embedding_does_not_hold_its_rows():
    words = 2_000_000
    model = nn.Embedding(words, 2)
    clipped = ClippedGradients(model, squared_loss)
    largest = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if isinstance(found, torch.Tensor) and found.data_ptr() != clipped.total.data_ptr():
                largest.append(found.numel())
            return found

    with Largest():
        clipped.add((torch.tensor([[1, 7, 7], [words - 1, 0, 5]]),), CLIPPING_NORM)
    assert max(n for n in largest if n != model.weight.numel()) < 100


PARTLY = {
    "linear": (nn.Linear(6, 4), "weight"),
    "convolution": (nn.Conv1d(3, 4, 2), "weight"),
    "grouped convolution": (nn.Conv1d(3, 3, 2, groups=3), "bias"),
    "layer norm's bias": (nn.LayerNorm(6), "weight"),
    "layer norm's weight": (nn.LayerNorm(6), "bias"),
    "lstm": (nn.LSTM(6, 4, batch_first=True), "weight_ih_l0"),
    "lstm's biases": (nn.LSTM(6, 4, batch_first=True), "weight"),
    "gru": (nn.GRU(6, 4, batch_first=True), "bias_hh_l0"),
}


@pytest.mark.parametrize("case", PARTLY)
def test_a_module_may_be_frozen_in_part(case):
    model, frozen = PARTLY[case]
    randomized(model)
    for name, p in model.named_parameters():
        p.requires_grad_(not name.startswith(frozen))
    batch = (torch.randn(3, 3, 6, generator=generator(8)),)
    rows = gradients(model, squared_loss, batch)
    clipped = ClippedGradients(model, squared_loss)
    norms = clipped.add(batch, CLIPPING_NORM)
    expected = clipped_sum(rows, norms, CLIPPING_NORM * (1 - clipped.margin))
    assert torch.allclose(clipped.total.double(), expected, atol=2e-6)
    assert norms.tolist() == pytest.approx(rows.norm(dim=1).tolist(), rel=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_long_units_are_normed_piece_by_piece_where_whole_gradients_are_large(monkeypatch, bias):
    monkeypatch.setattr(affine, "KEPT_VALUES", 50)
    model = randomized(nn.Linear(6, 4, bias=bias))
    batch = (torch.randn(5, 30, 6, generator=generator(9)),)
    rows = gradients(model, squared_loss, batch)
    clipped = ClippedGradients(model, squared_loss)
    norms = clipped.add(batch, CLIPPING_NORM)
    expected = clipped_sum(rows, norms, CLIPPING_NORM * (1 - clipped.margin))
    assert torch.allclose(clipped.total.double(), expected, atol=2e-6)
    assert bool((norms >= rows.norm(dim=1) * (1 - 1e-6)).all())
    assert norms.tolist() == pytest.approx(rows.norm(dim=1).tolist(), rel=1e-3)


class Begun(nn.Module):
    """A recurrent layer, deep and with dropout, that begins with a state that is given."""

    def __init__(self, inner: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        first = torch.ones(4, len(x), 4, dtype=x.dtype) * x.detach().mean(dim=(1, 2))[:, None]
        start = (first, 2 * first) if isinstance(self.inner, nn.LSTM) else first
        out, state = self.inner(x, start)
        return out + (state[1] if isinstance(state, tuple) else state).sum(dim=0)[:, None, :1]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_recurrent_layer_may_begin_with_a_state(kind):
    deep = kind(6, 4, 2, batch_first=True, bidirectional=True, dropout=0.5)
    model = randomized(Begun(deep)).eval()
    batch = (torch.randn(3, 5, 6, generator=generator(8)),)
    rows = gradients(model, squared_loss, batch)
    clipped = ClippedGradients(model, squared_loss)
    norms = clipped.add(batch, CLIPPING_NORM)
    expected = clipped_sum(rows, norms, CLIPPING_NORM * (1 - clipped.margin))
    assert torch.allclose(clipped.total.double(), expected, atol=2e-6)


def test_no_records_are_no_units():
    clipped = ClippedGradients(nn.Linear(6, 2), squared_loss)
    none = torch.zeros(0, dtype=torch.int64)
    assert len(clipped.add((torch.zeros(0, 6),), CLIPPING_NORM, none)) == 0


def test_an_input_changed_in_place_after_its_module_ran_is_refused():
    class Careless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(6)

        def forward(self, x):
            hidden = x * 2
            normed = self.norm(hidden)
            hidden += 1
            return normed + hidden

    with pytest.raises((ChangedInPlace, RuntimeError), match=r"changed in place|inplace"):
        ClippedGradients(Careless(), squared_loss).add((torch.randn(2, 6),), CLIPPING_NORM)


def test_a_rule_that_returns_too_little_is_found_with_its_parameter():
    class Half(Scale):
        """Scale, with a rule that is wrong."""

    per_record_rule(Half)(lambda module, inputs, g: {"scale": 0.5 * (inputs[0] * g).sum(1)})
    clipped = ClippedGradients(nn.Sequential(nn.Linear(6, 6), Half()), squared_loss)
    specimens = (torch.randn(3, 2, 6, generator=generator(2)),)
    with pytest.raises(NormIncomplete, match=r"'1\.scale'"):
        check_rules(clipped, squared_loss, specimens)
