"""Which device a gateway trains on."""

from __future__ import annotations

import pytest

from common.hyperparameters import Hyperparameters, Optimizer
from gateway.choices import Device
from gateway.device import NoGpu, device_for, device_here, is_usable
from gateway.functional import FunctionalGradients, check_functional
from gateway.one_backward import OneBackward
from gateway.training import LocalSteps, flat_parameters
from tests.placing import EverythingIsPlaced
from tests.unit.gateway import toys


@pytest.mark.parametrize(
    ("choice", "gpu", "taken"),
    [
        (Device.AUTO, True, "cuda"),
        (Device.AUTO, False, "cpu"),
        (Device.CPU, True, "cpu"),
        (Device.CPU, False, "cpu"),
        (Device.CUDA, True, "cuda"),
    ],
)
def test_a_gpu_is_taken_where_there_is_one_unless_the_settings_say_otherwise(choice, gpu, taken):
    assert device_for(choice, gpu=gpu).type == taken


def test_a_gpu_that_is_not_there_is_refused_with_the_way_out():
    with pytest.raises(NoGpu, match=r'torch .* no GPU here.*needs.*set device = "auto"') as refused:
        device_for(Device.CUDA, gpu=False)
    assert refused.value.field == "device"


def test_a_device_is_usable_if_torch_computes_there():
    assert is_usable("cpu")
    assert not is_usable("cuda:99")


def test_what_is_taken_here_is_what_torch_can_use():
    assert device_here(Device.CPU).type == "cpu"
    assert device_here(Device.AUTO).type == ("cuda" if is_usable("cuda") else "cpu")


@pytest.mark.parametrize("optimizer", list(Optimizer))
def test_both_engines_and_local_steps_make_their_tensors_where_the_model_lies(optimizer):
    model, examples = toys.model(), toys.Examples(6)
    specimens = examples.batch([0, 1, 2])
    units = [[0, 1], [2], [3, 4, 5]]
    with EverythingIsPlaced():
        start = flat_parameters(model)
        check_functional(model, toys.loss, specimens)
        for engine in (
            FunctionalGradients(model, toys.loss, examples.batch, 2),
            OneBackward(model, toys.loss, examples.batch, specimens, 2),
        ):
            total = engine.clipped_sum(start, units, 3.0, 0.5).total
            private = toys.HOW.model_dump() | {"optimizer": optimizer}
            local = LocalSteps(start, Hyperparameters.model_validate(private))
            local.step(total)
            assert local.difference.isfinite().all()
