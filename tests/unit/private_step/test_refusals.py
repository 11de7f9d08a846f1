"""What cannot be trained privately in one backward pass is refused by name, with the way out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from private_step import ClippedGradients
from private_step.checks import check_records_alone, check_rules
from private_step.errors import (
    BatchNormForbidden,
    LossWithoutGradient,
    ModuleRanTwice,
    NormIncomplete,
    NotPerExample,
    ParameterUsedOutside,
    TiedParameter,
    TooManyRecords,
    UnitsInterfere,
    UnitsNotFirst,
    UnitsNotInOrder,
    UnsupportedModule,
)
from tests.unit.private_step.naive import generator, squared_loss

X = torch.randn(4, 3, 6, generator=generator(1))


class Bare(nn.Module):
    """Has a parameter of its own, and no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x):
        return x * self.scale


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        return self.inner(torch.tanh(self.inner(x)))


class Reaching(nn.Module):
    """Uses a parameter of another module's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        return functional.linear(self.inner(x), self.inner.weight)


class Positions(nn.Module):
    """Looks the same positions up for all records at once."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(3, 6)

    def forward(self, x):
        return x * self.positions(torch.arange(x.shape[1]))


class Started(nn.Module):
    """Begins a recurrent layer with a state that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.inner = nn.GRU(6, 5, batch_first=True)

    def forward(self, x):
        return self.inner(x, self.first(x[:, 0])[None])[0]


class Subclass(nn.Linear):
    """A linear layer which does something else."""

    def forward(self, x):
        return super().forward(x) * 2


BEFORE_ANYTHING_RUNS = {
    "bare parameter": (Bare(), UnsupportedModule, "Bare"),
    "tied weights": (Tied(), TiedParameter, "first.weight"),
    "batch norm": (nn.Sequential(nn.Conv1d(3, 3, 1), nn.BatchNorm1d(3)), BatchNormForbidden, "'1'"),
    "subclass": (nn.Sequential(Subclass(6, 6)), UnsupportedModule, "Subclass"),
    "bilinear": (nn.Bilinear(6, 6, 2), UnsupportedModule, "Bilinear"),
    "transposed": (nn.ConvTranspose1d(3, 3, 1), UnsupportedModule, "ConvTranspose1d"),
    "prelu": (nn.Sequential(nn.Linear(6, 6), nn.PReLU()), UnsupportedModule, "PReLU"),
    "projected": (nn.LSTM(6, 5, proj_size=2), UnsupportedModule, "proj_size"),
    "extra keys": (nn.MultiheadAttention(6, 2, add_bias_kv=True), UnsupportedModule, "bias_kv"),
    "zero keys": (nn.MultiheadAttention(6, 2, add_zero_attn=True), UnsupportedModule, "zero_attn"),
    "renormalised": (nn.Embedding(6, 2, max_norm=1.0), UnsupportedModule, "max_norm"),
    "frequency": (nn.Embedding(6, 2, scale_grad_by_freq=True), UnsupportedModule, "freq"),
}

AT_THE_FIRST_PASS = {
    "twice": (Twice(), ModuleRanTwice, "inner"),
    "reaching": (Reaching(), ParameterUsedOutside, "inner.weight"),
    "positions": (Positions(), UnitsNotFirst, "positions"),
    "learned start": (Started(), UnsupportedModule, "initial state"),
    "flattened": (nn.Sequential(nn.Flatten(0, 1), nn.Linear(6, 2)), UnitsNotFirst, "'1'"),
    "unbatched attention": (nn.MultiheadAttention(6, 2), UnitsNotFirst, "records"),
}


@pytest.mark.parametrize("case", BEFORE_ANYTHING_RUNS)
def test_a_module_without_a_rule_is_refused_by_name(case):
    model, error, words = BEFORE_ANYTHING_RUNS[case]
    with pytest.raises(error, match=words):
        ClippedGradients(model, squared_loss)


@pytest.mark.parametrize("case", AT_THE_FIRST_PASS)
def test_what_only_a_pass_can_show_is_refused_by_name(case):
    model, error, words = AT_THE_FIRST_PASS[case]
    if isinstance(model, nn.MultiheadAttention):

        def loss(attend, batch):
            flat = batch[0].flatten(0, 1)
            return attend(flat, flat, flat)[0].sum(1).view(4, 3).sum(1)

    else:
        loss = squared_loss
    with pytest.raises(error, match=words):
        ClippedGradients(model, loss).add((X,), 1.0)


def test_after_a_refusal_the_model_is_as_it_was():
    model = Reaching()
    with pytest.raises(ParameterUsedOutside):
        ClippedGradients(model, squared_loss).add((X,), 1.0)
    assert "forward" not in vars(model.inner)
    assert all(p.grad is None for p in model.parameters())
    squared_loss(model, (X,)).sum().backward()
    assert model.inner.weight.grad is not None


def test_frozen_modules_need_no_rule():
    model = nn.Sequential(Bare().requires_grad_(False), nn.Linear(6, 2))
    assert ClippedGradients(model, squared_loss).add((X,), 1.0).shape == (4,)


def test_a_mean_over_the_batch_is_refused():
    model = nn.Linear(6, 2)
    with pytest.raises(NotPerExample, match="without a mean"):
        ClippedGradients(model, lambda m, b: squared_loss(m, b).mean()).add((X,), 1.0)


def test_a_detached_loss_is_refused():
    with pytest.raises(LossWithoutGradient, match="detached"):
        ClippedGradients(nn.Linear(6, 2), lambda m, b: squared_loss(m, b).detach()).add((X,), 1.0)


def test_a_loss_that_looks_across_the_batch_is_refused():
    def loss(model, batch):
        losses = squared_loss(model, batch)
        return losses * losses.mean()

    with pytest.raises(UnitsInterfere, match="another gradient in a batch than alone"):
        check_records_alone(nn.Linear(6, 2), loss, (X,))


def test_a_rule_that_misses_a_parameter_is_found():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    gradients = ClippedGradients(model, squared_loss)
    gradients._watched = gradients._watched[1:]  # as if the first layer had been forgotten
    with pytest.raises((NormIncomplete, ParameterUsedOutside)):
        check_rules(gradients, squared_loss, (X,))


def test_positions_as_many_as_records_are_refused_all_the_same():
    records_as_positions = X[:3]  # three records of three positions each
    gradients = ClippedGradients(Positions(), squared_loss)
    with pytest.raises((UnitsNotFirst, NormIncomplete)):
        check_rules(gradients, squared_loss, (records_as_positions,))


def test_more_units_than_the_margin_allows_are_refused():
    with pytest.raises(TooManyRecords, match="65"):
        ClippedGradients(nn.Linear(6, 2), squared_loss).add((torch.zeros(65, 6),), 1.0)


@pytest.mark.parametrize("units", [[1, 1, 2, 3], [0, 2, 2, 3], [0, 1, 0, 1], [0, -1, 0, 1]])
def test_units_that_do_not_stand_together_are_refused(units):
    with pytest.raises(UnitsNotInOrder, match="stand together"):
        ClippedGradients(nn.Linear(6, 2), squared_loss).add((X,), 1.0, torch.tensor(units))
