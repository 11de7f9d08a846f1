from __future__ import annotations

import pytest
import torch
from torch import nn

from common.hyperparameters import Optimizer
from gateway.functional import FunctionalGradients, NotVectorisable, check_functional
from gateway.one_backward import NotInOneBackward, OneBackward
from gateway.training import LocalSteps, flat_parameters
from private_step.errors import BatchNormForbidden, NotPerExample, UnitsInterfere
from tasks.parameters import layout_of
from tasks.task import each_alone
from tests.unit.gateway.toys import HOW, Examples, assert_close, loss, model, values

SPECIMENS = Examples(8).batch(range(8))


def gradients_of(net: nn.Module, data: Examples, micro_batch: int = 16) -> FunctionalGradients:
    return FunctionalGradients(net, loss, data.batch, micro_batch)


def by_hand(net: nn.Module, data: Examples, row: int) -> torch.Tensor:
    """One example's gradient by plain backward."""
    net.zero_grad()
    loss(net, data.batch([row])).sum().backward()
    named = sorted(net.named_parameters())
    return torch.cat([p.grad.flatten() for _, p in named if p.requires_grad])


def test_gradients_are_those_of_plain_backward_example_by_example():
    net, data = model(), Examples(10)
    (block,) = gradients_of(net, data).blocks(flat_parameters(net), each_alone(10))
    expected = torch.stack([by_hand(net, data, row) for row in range(10)])
    assert_close(block, expected.double())


def test_parameters_lie_in_the_order_of_the_layout():
    net = model()
    names = [tensor.name for tensor in layout_of(net).tensors]
    assert names == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert flat_parameters(net)[:8].equal(net[0].bias)
    assert layout_of(net).size == len(flat_parameters(net))


def test_frozen_parameters_have_no_gradient_and_no_place():
    net = model()
    net[0].weight.requires_grad_(requires_grad=False)
    data = Examples(4)
    (block,) = gradients_of(net, data).blocks(flat_parameters(net), each_alone(4))
    assert block.shape == (4, layout_of(net).size)
    assert_close(block[2], by_hand(net, data, 2).double())


def test_no_more_than_a_micro_batch_is_read_at_once():
    net, data, reads = model(), Examples(40), []
    data.on_read = lambda rows: reads.append(len(rows))
    blocks = gradients_of(net, data, micro_batch=7).blocks(flat_parameters(net), each_alone(20))
    first = next(blocks)
    assert reads == [7]
    assert [len(first), *(len(block) for block in blocks)] == reads == [7, 7, 6]


def test_an_empty_batch_reads_nothing_and_has_no_block():
    net, data = model(), Examples()
    data.on_read = pytest.fail
    assert list(gradients_of(net, data).blocks(flat_parameters(net), each_alone(0))) == []


def test_gradients_follow_the_parameters_given_not_the_models_own():
    net, data = model(), Examples(3)
    start = flat_parameters(net)
    (here,) = gradients_of(net, data).blocks(start, each_alone(3))
    (there,) = gradients_of(net, data).blocks(start + 1, each_alone(3))
    assert not torch.allclose(here, there)
    assert flat_parameters(net).equal(start)


def test_a_sound_model_passes():
    check_functional(model(), loss, SPECIMENS)


def test_dropout_is_off():
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2))
    check_functional(net.train(), loss, SPECIMENS)


def test_batch_norm_is_refused_by_name():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(BatchNormForbidden, match="module '1' normalises over the batch"):
        check_functional(net, loss, SPECIMENS)


class Centred(nn.Module):
    """Takes the batch's mean off every example, or stands still for a batch of one."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs - inputs.mean(dim=0) * (len(inputs) > 1)


def test_a_layer_that_looks_across_the_batch_is_refused():
    net = nn.Sequential(nn.Linear(3, 4), Centred(), nn.Linear(4, 2))
    with pytest.raises(UnitsInterfere, match="synthetic example 0 has another gradient"):
        check_functional(net, loss, SPECIMENS)


def test_a_loss_that_is_already_a_mean_is_refused():
    def mean_loss(net, batch):
        return loss(net, batch).mean()

    with pytest.raises(NotPerExample, match="without a mean over the batch"):
        check_functional(model(), mean_loss, SPECIMENS)


def test_a_loss_that_is_a_mean_of_its_batch_of_one_is_refused():
    def late_mean(net, batch):
        losses = loss(net, batch)
        return losses.mean().expand(1) if len(losses) > 1 else losses

    with pytest.raises(NotPerExample, match=r"\(1,\) for a batch of shape \(8,\)"):
        check_functional(model(), late_mean, SPECIMENS)


def test_a_model_without_gradient_everywhere_is_compared_at_zero():
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(2, 2)

        def forward(self, inputs):
            return self.used(inputs)

    check_functional(Partly(), loss, SPECIMENS)


def stepped(**changes: object) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Where four steps by the same gradient lead."""
    local = LocalSteps(torch.zeros(3), HOW.model_copy(update={"learning_rate": 0.1, **changes}))
    gradient = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    places = []
    for _ in range(4):
        local.step(gradient)
        places.append(local.parameters.clone())
    return places, local.difference


def test_sgd_steps_down_the_gradient():
    places, difference = stepped()
    assert_close(places[0], torch.tensor([-0.1, 0.2, -0.05]))
    assert_close(difference, 4 * places[0])


def test_momentum_adds_up():
    places, _ = stepped(momentum=0.5)
    assert_close(places[1], places[0] * 2.5)


def test_warm_up_rises_linearly_and_then_stays():
    places, _ = stepped(warmup_steps=2)
    full = torch.tensor([-0.1, 0.2, -0.05])
    assert_close(torch.stack(places), torch.stack([full * n for n in (0.5, 1.5, 2.5, 3.5)]))


def test_adamw_steps_by_the_sign_first():
    places, _ = stepped(optimizer=Optimizer.ADAMW, weight_decay=0.1)
    assert_close(places[0], torch.tensor([-0.1, 0.1, -0.1]), atol=1e-5, rtol=0)


def test_weight_decay_pulls_towards_zero():
    start = values(5)
    how = {"optimizer": Optimizer.ADAMW, "weight_decay": 0.5, "learning_rate": 0.1}
    local = LocalSteps(start, HOW.model_copy(update=how))
    local.step(torch.zeros(5, dtype=torch.float64))
    assert_close(local.parameters, start * 0.95)
    assert_close(local.difference, start * 0.95 - start)


class Branching(nn.Module):
    """Looks at its input's values, which `torch.func` cannot for many examples at once."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.linear(inputs) * (1 if inputs.sum().item() > 0 else 2)


def test_a_model_that_branches_on_its_data_is_refused_with_the_way_out():
    with pytest.raises(NotVectorisable, match=r"item\(\).*neither branch on the data"):
        check_functional(Branching(), loss, Examples(4).batch(range(4)))


def one_backward(net: nn.Module, data: Examples, micro_batch: int = 16) -> OneBackward:
    return OneBackward(net, loss, data.batch, SPECIMENS, micro_batch)


@pytest.mark.parametrize("micro_batch", [1, 7, 1000])
def test_one_backward_pass_gives_the_sum_of_gradients_clipped_one_by_one(micro_batch):
    net, data, rows = model(), Examples(100), each_alone(90)
    start = flat_parameters(net) + 0.1
    exact = gradients_of(net, data).clipped_sum(start, rows, 90.0, 0.5).total
    found = one_backward(net, data, micro_batch).clipped_sum(start, rows, 90.0, 0.5).total
    assert_close(found.double(), exact, rtol=0.02, atol=0.02)  # clipped to a little less


def test_one_backward_pass_reads_no_more_than_a_micro_batch_at_once():
    net, data, reads = model(), Examples(200), []
    data.on_read = lambda rows: reads.append(len(rows))
    trained = one_backward(net, data, micro_batch=1000)
    trained.clipped_sum(flat_parameters(net), each_alone(150), 150.0, 1.0)
    assert reads == [64, 64, 22]


def test_of_no_rows_one_backward_pass_gives_zeros_and_reads_nothing():
    net, data = model(), Examples()
    trained = one_backward(net, data)
    trained.clipped_sum(flat_parameters(net), each_alone(3), 3.0, 1.0)
    data.on_read = pytest.fail
    total = trained.clipped_sum(flat_parameters(net), each_alone(0), 3.0, 1.0).total
    assert total.shape == (layout_of(net).size,)
    assert not total.any()


def test_a_model_that_no_rule_covers_is_refused_with_the_way_out_for_a_gateway():
    net = nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 2))
    with pytest.raises(NotInOneBackward, match=r"module '1' \(PReLU\).*gradients = .functional"):
        one_backward(net, Examples(4))
