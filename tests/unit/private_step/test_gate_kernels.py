"""The steps of an LSTM by the kernels, against torch."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from private_step.layers import gates
from private_step.layers.gate_kernels import (
    NARROW,
    WIDE,
    Tile,
    exponential,
    hyperbolic_tangent,
    sigmoid,
)
from tests.unit.private_step.naive import generator
from tests.unit.private_step.test_noise_kernel import applied

STEPS, RECORDS, INPUTS = 3, 9, 3  # one record more than whole tiles have
WIDTHS = (4, 27)  # less than a wide step; one of 16, one of 8, three of 1


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed)) * scale


@pytest.fixture(autouse=True)
def _however_small(monkeypatch):
    monkeypatch.setattr(gates, "WORTH_COMPILING", 1)


def states_of(width: int, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    """What goes into the gates, cells, their tanh, and what is read; the later ones to come."""
    gate = drawn(STEPS, RECORDS, 4 * width, seed=1, scale=scale)
    cells = drawn(STEPS + 1, RECORDS, width, seed=2)
    return gate, cells, cells[1:].tanh(), drawn(STEPS + 1, RECORDS, INPUTS + width, seed=3)


def test_exponentials_reach_from_nothing_to_very_much():
    x = np.linspace(-86, 86, 999, dtype=np.float32)
    (found,) = applied(lambda lanes: [exponential(lanes)], x)
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=3e-7)
    far = np.array([-1e30, -200.0, 200.0, 1e30], np.float32)
    (found,) = applied(lambda lanes: [exponential(lanes)], far)
    assert found[:2].max() < 1e-37
    assert found[2:].min() > 1e37


def test_what_is_not_a_number_stays_none():
    x = np.full(20, np.nan, np.float32)
    for function in (exponential, sigmoid, hyperbolic_tangent):
        (found,) = applied(lambda lanes, function=function: [function(lanes)], x)
        assert np.isnan(found).all()


def test_tanhs_are_right_near_zero_and_far_away():
    x = np.concatenate([np.linspace(-9, 9, 999), [1e-20, -1e-20, 0.0, 99, -99]]).astype(np.float32)
    (found,) = applied(lambda lanes: [hyperbolic_tangent(lanes)], x)
    np.testing.assert_allclose(found, np.tanh(x.astype(np.float64)), rtol=3e-7)


def run_by(codes, states, weights, above) -> list[torch.Tensor]:
    """Go through all steps and back; return the states and the gradients of the gates."""
    into = torch.zeros_like(states[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "_codes", lambda: codes)
        gates._through_steps(states, weights)
        gates._back_through_steps(states, weights, (above, None), into)
    return [*states, into]


@pytest.mark.parametrize("tile", [WIDE, NARROW, Tile(5, (8, 1))], ids=repr)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_all_steps_are_those_of_torch(width, scale, tile):
    codes = gates._compiled(tile)
    weights, above = (
        drawn(4 * width, width, seed=4, scale=0.3),
        drawn(STEPS, RECORDS, width, seed=5),
    )
    results = [run_by(each, states_of(width, scale), weights, above) for each in (codes, None)]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_gradient_of_the_cells_is_carried_back_too():
    states, weights = states_of(27), drawn(108, 27, seed=4, scale=0.3)
    run_by(None, states, weights, drawn(STEPS, RECORDS, 27, seed=5))
    of_hidden, of_cells = drawn(2, STEPS, RECORDS, 27, seed=6).unbind(0)
    found = [torch.zeros_like(states[0]) for _ in range(3)]
    for each, above in zip(found, (None, of_cells, torch.zeros_like(of_cells)), strict=True):
        gates._back_through_steps(states, weights, (of_hidden, above), each)
    torch.testing.assert_close(found[0], found[2], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found[0], found[1], atol=1e-2)


def test_without_llvmlite_torch_does_the_steps(monkeypatch):
    monkeypatch.setitem(sys.modules, "private_step.layers.gate_kernels", None)
    monkeypatch.delattr("private_step.layers.gate_kernels")
    assert gates._codes.__wrapped__() is None
