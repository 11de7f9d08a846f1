"""One step of an LSTM by the kernels, against torch."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from private_step.layers import gates
from private_step.layers.gate_kernels import exponential, hyperbolic_tangent, sigmoid
from tests.unit.private_step.naive import generator
from tests.unit.private_step.test_kernels import applied

STEPS, RECORDS, INPUTS = 3, 5, 3
WIDTHS = (4, 27)  # less than a wide step; one of 16, one of 8, three of 1


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed)) * scale


@pytest.fixture(autouse=True)
def _however_small(monkeypatch):
    monkeypatch.setattr(gates, "WORTH_COMPILING", 1)


def states_of(width: int) -> tuple[torch.Tensor, ...]:
    """Gates, cells, their tanh, and what is read."""
    gate = drawn(STEPS, RECORDS, 4 * width, seed=1).sigmoid()
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


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_step_forward_is_that_of_torch(width, scale):
    own, plain = states_of(width), states_of(width)
    raw = drawn(RECORDS, 4 * width, seed=4, scale=scale)
    same, state = torch.empty(2, RECORDS, width).unbind(0)
    gates._compiled_forward(own, same)(1, raw.clone())
    gates._plain_forward(plain, state)(1, raw.clone())
    for found, expected in zip((*own, same), (*plain, state), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_step_back_is_that_of_torch(width):
    found, above = drawn(RECORDS, width, seed=5), drawn(STEPS, RECORDS, width, seed=6)
    results = []
    for steps in (gates._plain_backward, gates._compiled_backward):
        into, carry = torch.zeros(STEPS, RECORDS, 4 * width), drawn(RECORDS, width, seed=7)
        steps(states_of(width), (above, carry), into)(1, found)
        results.append((into, carry))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=3e-7)


def test_without_llvmlite_torch_does_the_steps(monkeypatch):
    monkeypatch.setitem(sys.modules, "private_step.layers.gate_kernels", None)
    monkeypatch.delattr("private_step.layers.gate_kernels")
    assert gates._codes.__wrapped__() is None
