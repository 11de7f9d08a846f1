"""A unit of more records than a micro-batch: accumulated plainly, clipped once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from private_step import ClippedGradients
from private_step.errors import LossWithoutGradient, NotPerExample
from tests.unit.private_step.naive import generator, gradients, randomized, squared_loss

BOUND = 0.7


def network() -> nn.Module:
    return randomized(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)))


def pieces(x: torch.Tensor, most: int = 8):
    return ((piece,) for piece in x.split(most))


@pytest.mark.parametrize("scale", [3.0, 1e-3])
@pytest.mark.parametrize("records", [1, 8, 9, 300])
def test_it_adds_the_naive_sum_of_its_records_clipped_once(records, scale):
    model, x = network(), torch.randn(records, 3, 6, generator=generator(1)) * scale
    unit = gradients(model, squared_loss, (x,)).double().sum(dim=0)
    clipped = ClippedGradients(model, squared_loss)
    norm = clipped.add_large(pieces(x), BOUND)
    expected = unit * min(1.0, BOUND * (1 - clipped.margin) / float(unit.norm()))
    assert float(norm) == pytest.approx(float(unit.norm()), rel=1e-5)
    assert torch.allclose(clipped.total.double(), expected, atol=1e-6)
    assert float(clipped.total.double().norm()) <= BOUND


def test_it_adds_what_it_would_within_one_micro_batch():
    model, x = network(), torch.randn(40, 3, 6, generator=generator(2))
    large, small = (ClippedGradients(model, squared_loss) for _ in range(2))
    large.add_large(pieces(x), BOUND)
    small.add((x,), BOUND, torch.zeros(40, dtype=torch.int64))
    assert torch.allclose(large.total, small.total, atol=1e-4 * BOUND)


def test_how_it_is_cut_does_not_matter():
    model, x = network(), torch.randn(40, 3, 6, generator=generator(3))
    one, other = (ClippedGradients(model, squared_loss) for _ in range(2))
    one.add_large(pieces(x, 3), BOUND)
    other.add_large(pieces(x, 40), BOUND)
    assert torch.allclose(one.total, other.total, atol=1e-6)


def test_it_joins_the_sum_of_others_and_leaves_them_as_they_are():
    model, x = network(), torch.randn(20, 3, 6, generator=generator(4))
    clipped = ClippedGradients(model, squared_loss)
    clipped.add((x[:4],), BOUND)
    before = clipped.total.clone()
    clipped.add_large(pieces(x[4:]), BOUND)
    alone = ClippedGradients(model, squared_loss)
    alone.add_large(pieces(x[4:]), BOUND)
    assert torch.allclose(clipped.total, before + alone.total, atol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_large_unit_that_is_not_finite_adds_nothing(bad):
    x = torch.randn(20, 3, 6, generator=generator(5))
    x[13, 0, 0] = bad
    clipped = ClippedGradients(network(), squared_loss)
    assert clipped.add_large(pieces(x), BOUND).tolist() == [math.inf]
    assert not bool(clipped.total.any())


def test_it_asks_for_a_piece_when_its_turn_comes():
    asked, seen = [], []

    def loss(model, batch):
        seen.append(len(asked))
        return squared_loss(model, batch)

    def reading():
        for piece in torch.randn(20, 3, 6, generator=generator(6)).split(8):
            asked.append(len(piece))
            yield (piece,)

    ClippedGradients(network(), loss).add_large(reading(), BOUND)
    assert seen == [1, 2, 3]


def test_a_parameter_that_no_record_uses_has_no_gradient():
    model = nn.ModuleDict({"used": nn.Linear(6, 2), "idle": nn.Linear(6, 2)})

    def loss(model, batch):
        return squared_loss(model["used"], batch)

    clipped = ClippedGradients(model, loss)
    clipped.add_large(pieces(torch.ones(9, 3, 6)), BOUND)
    assert not bool(clipped.total[: 6 * 2 + 2].any())
    assert bool(clipped.total[6 * 2 + 2 :].any())


def test_a_loss_that_cannot_be_clipped_is_refused():
    x = torch.ones(9, 3, 6)
    for loss, error in (
        (lambda model, batch: squared_loss(model, batch).mean(), NotPerExample),
        (lambda model, batch: squared_loss(model, batch).detach(), LossWithoutGradient),
    ):
        with pytest.raises(error):
            ClippedGradients(network(), loss).add_large(pieces(x), BOUND)
