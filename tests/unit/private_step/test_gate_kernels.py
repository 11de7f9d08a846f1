"""One step of an LSTM by the compiled loops, as plain Python, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from private_step.layers import gates
from private_step.layers.gate_kernels import backward_step, exponentials, forward_step, tanhs_of
from tests.unit.private_step.naive import generator

STEPS, RECORDS, INPUTS, WIDTH = 3, 2, 3, 4


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed)) * scale


@pytest.fixture
def states() -> tuple[torch.Tensor, ...]:
    """Gates, cells, their tanh, and what is read."""
    gate = drawn(STEPS, RECORDS, 4 * WIDTH, seed=1).sigmoid()
    cells = drawn(STEPS + 1, RECORDS, WIDTH, seed=2)
    return gate, cells, cells[1:].tanh(), drawn(STEPS + 1, RECORDS, INPUTS + WIDTH, seed=3)


def test_exponentials_reach_from_nothing_to_very_much():
    x = np.linspace(-86, 86, 999, dtype=np.float32)
    found, room = np.empty_like(x), np.empty(len(x), np.int32)
    exponentials(x, room, found)
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=3e-7)
    far = np.array([-1e30, -200.0, 200.0, 1e30], np.float32)
    exponentials(far, room[:4], found[:4])
    assert found[:2].max() < 1e-37
    assert found[2:4].min() > 1e37


def test_tanhs_are_right_near_zero_and_far_away():
    x = np.concatenate([np.linspace(-9, 9, 999), [1e-20, -1e-20, 0.0]]).astype(np.float32)
    found = np.empty_like(x)
    tanhs_of(x, np.exp(2 * x), found)
    np.testing.assert_allclose(found, np.tanh(x.astype(np.float64)), rtol=3e-7)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_step_forward_is_that_of_torch(states, scale):
    plain = tuple(each.clone() for each in states)
    raw = drawn(RECORDS, 4 * WIDTH, seed=4, scale=scale)
    state = torch.empty(RECORDS, WIDTH)
    gates._plain_forward(plain, state)(1, raw.clone())
    rooms = np.empty(4 * WIDTH, np.float32), np.empty(4 * WIDTH, np.float32)
    same = torch.empty(RECORDS, WIDTH)
    arrays = tuple(each.numpy() for each in (*states, same))
    forward_step(1, raw.numpy().copy(), arrays, (*rooms, np.empty(4 * WIDTH, np.int32)))
    for found, expected in zip((*states, same), (*plain, state), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("wide", [0, INPUTS])
def test_a_step_back_is_that_of_torch(states, wide):
    found, above = drawn(RECORDS, wide + WIDTH, seed=5), drawn(STEPS, RECORDS, WIDTH, seed=6)
    carried = drawn(RECORDS, WIDTH, seed=7)
    results = []
    for compiled in (False, True):
        into, carry = torch.zeros(STEPS, RECORDS, 4 * WIDTH), carried.clone()
        if compiled:
            arrays = tuple(each.numpy() for each in states[:3])
            upper = above.numpy(), carry.numpy()
            backward_step(1, found.numpy(), upper, arrays, into.numpy())
        else:
            gates._plain_backward(states, (above, carry), into)(1, found)
        results.append((into, carry))
    for expected, got in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=3e-7)
