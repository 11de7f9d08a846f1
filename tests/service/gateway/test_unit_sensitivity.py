"""What one unit can do to the sum, by either way: each unit of each batch taken out."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dp_sgd import count_within
from gateway.functional import FunctionalGradients
from gateway.one_backward import OneBackward
from gateway.training import flat_parameters
from tests.unit.gateway.toys import Examples, loss, model

SPECIMENS = Examples(8).batch(range(8))
NET = model()
START = flat_parameters(NET)
COMPANY = 1e-3  # what others' norms change by rounding, and so the count


def by_one_backward(data: Examples, most: int) -> OneBackward:
    return OneBackward(NET, loss, data.batch, SPECIMENS, most)


def by_functional(data: Examples, most: int) -> FunctionalGradients:
    """Records' gradients are taken once, so that only the summing and clipping are left."""
    rows = FunctionalGradients(NET, loss, data.batch, most).of(START, data.batch(range(len(data))))
    trained = FunctionalGradients(NET, loss, lambda asked: (torch.tensor(asked),), most)
    trained.of = lambda _, batch: rows[batch[0]]
    return trained


WAYS = {"one backward pass": by_one_backward, "functional": by_functional}


def documents(sizes: list[int]) -> list[range]:
    starts = [sum(sizes[:place]) for place in range(len(sizes) + 1)]
    return [range(*pair) for pair in pairwise(starts)]


@pytest.mark.parametrize("way", WAYS)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    spread=st.sampled_from([0, 4]),
    aligned=st.booleans(),
    most=st.sampled_from([3, 16, 64]),
    clipping_norm=st.sampled_from([1e-3, 0.5, 20.0]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_removing_any_unit_moves_the_sum_by_at_most_the_clipping_norm(
    way, sizes, spread, aligned, most, clipping_norm
):
    units, data = documents(sizes), Examples(sum(sizes), seed=len(sizes))
    if aligned:  # all records pull the same way, so that a unit of many is many times as long
        data.inputs[:], data.classes[:] = data.inputs[0].clone(), data.classes[0].clone()
    data.inputs *= 10.0 ** (spread * (torch.rand(len(data), 1) - 0.5))
    trained = WAYS[way](data, most)

    def added_up(some: list[range]) -> tuple[torch.Tensor, float]:
        found = trained.clipped_sum(START, some, float(len(units)), clipping_norm)
        return found.total.clone().double(), found.count

    whole, count = added_up(units)
    for left_out in range(len(units)):
        others, of_others = added_up(units[:left_out] + units[left_out + 1 :])
        assert math.hypot(*(whole - others).tolist()) <= clipping_norm
        assert abs(count - of_others) <= 0.5 + COMPANY


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("most", [2, 7, 64])
def test_the_sum_is_the_naive_one_over_units_clipped_once(way, most):
    sizes = [1, 3, 40, 2, 1, 9, 70]
    units, data = documents(sizes), Examples(sum(sizes))
    alone = FunctionalGradients(NET, loss, data.batch, 200)
    expected = torch.zeros(len(START), dtype=torch.float64)
    for rows in units:
        unit = alone.of(START, data.batch(list(rows))).double().sum(dim=0)
        expected += unit * min(1.0, 0.5 / float(unit.norm()))
    found = WAYS[way](data, most).clipped_sum(START, units, 7.0, 0.5).total.double()
    assert torch.allclose(found, expected, atol=0.01 * float(expected.norm()))


def test_by_torch_func_no_cut_and_no_company_changes_a_bit():
    data, units = Examples(90), documents([5, 40, 1, 30, 14])
    first, *others = (
        by_functional(data, most).clipped_sum(START, units[::order], 5.0, 0.7).total
        for most, order in ((64, 1), (7, 1), (1, -1))
    )
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("way", WAYS)
def test_the_count_is_that_of_the_true_norms(way):
    """The one that is raised for rounding is as good as equal; one document is not finite."""
    sizes = [1, 3, 40, 2, 1, 9, 70, 2]
    units, data = documents(sizes), Examples(sum(sizes))
    data.inputs[units[3][0], 1] = math.nan
    every = FunctionalGradients(NET, loss, data.batch, 200)
    rows = (every.of(START, data.batch(list(unit))).double().sum(dim=0) for unit in units)
    norms = torch.stack([row.norm() for row in rows])
    for clipping_norm in (0.5, 2.0, float(norms[0]), 30.0):
        found = WAYS[way](data, 16).clipped_sum(START, units, 8.0, clipping_norm).count
        assert found == pytest.approx(count_within(norms, clipping_norm), abs=COMPANY)
