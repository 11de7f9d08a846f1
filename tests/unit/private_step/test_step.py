"""Private steps on a plain module, in a loop of one's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.randomness import RandomStream
from private_step import PrivacyOfStep, PrivateStep
from private_step.errors import BatchNormForbidden, UnitsInterfere
from private_step.step import NotPositive
from tests.unit.private_step.naive import (
    clipped_sum,
    generator,
    gradients,
    randomized,
    squared_loss,
)

X = torch.randn(150, 6, generator=generator(1))
QUIET = PrivacyOfStep(clipping_norm=0.5, noise_multiplier=1e-6, expected_batch_size=100.0)


def stepping(model: nn.Module, privacy: PrivacyOfStep = QUIET, **more) -> PrivateStep:
    return PrivateStep(
        model, squared_loss, (X[:3],), privacy, lambda p: torch.optim.SGD(p, lr=0.1), **more
    )


def flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for _, p in sorted(model.named_parameters())])


def test_a_step_goes_down_the_clipped_sum_over_the_expected_size():
    model = randomized(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)))
    rows = gradients(model, squared_loss, (X,))
    before = flat(model)
    stepping(model).step((X,))  # in three micro-batches
    expected = clipped_sum(rows, rows.norm(dim=1), 0.5) / 100
    moved = (before - flat(model)).double() / 0.1
    assert float((moved - expected).norm()) < 0.015 * float(expected.norm())


def test_an_empty_batch_is_a_step_of_noise():
    model = randomized(nn.Linear(6, 400))
    before = flat(model)
    loud = PrivacyOfStep(clipping_norm=2.0, noise_multiplier=3.0, expected_batch_size=4.0)
    stepping(model, loud).step((X[:0],))
    assert float((flat(model) - before).std()) == pytest.approx(0.1 * 2.0 * 3.0 / 4.0, rel=0.06)


def test_steps_under_one_key_are_the_same_and_under_fresh_ones_are_not():
    loud = PrivacyOfStep(clipping_norm=1.0, noise_multiplier=1.0, expected_batch_size=4.0)
    found = []
    for stream in (RandomStream(bytes(32)), RandomStream(bytes(32)), None, None):
        model = randomized(nn.Linear(6, 2))
        stepping(model, loud, stream=stream).step((X[:4],))
        found.append(flat(model))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.equal(found[2], found[3])


def test_the_module_itself_is_trained():
    model = randomized(nn.Linear(6, 1))
    private = stepping(model)
    first = float(squared_loss(model, (X,)).detach().mean())
    for _ in range(30):
        private.step((X,))
    assert float(squared_loss(model, (X,)).detach().mean()) < 0.8 * first


@pytest.mark.parametrize("name", ["clipping_norm", "noise_multiplier", "expected_batch_size"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_promise_of_nothing_is_refused(name, value):
    values = {"clipping_norm": 1.0, "noise_multiplier": 1.0, "expected_batch_size": 1.0}
    with pytest.raises(NotPositive, match=f"{name} is {value}"):
        PrivacyOfStep(**{**values, name: value})


def test_a_model_is_checked_before_it_is_trained():
    with pytest.raises(BatchNormForbidden):
        stepping(nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).eval())

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 2)

        def forward(self, x):
            return self.inner(x - x.mean(dim=0))

    with pytest.raises(UnitsInterfere):
        stepping(Mixing())
