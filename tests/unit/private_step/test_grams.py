"""Squared norms by Gram matrices: by the kernels and by torch, against whole gradients."""

from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional

from private_step import grams
from private_step.gram_kernel import NARROW, WIDE, Block
from tests.unit.private_step.naive import generator

UNITS, ROWS, INPUTS, OUTPUTS = 3, 21, 37, 18  # of no whole number of blocks and of vectors
BLOCKS = [None, WIDE, NARROW, Block(2, 8)]  # None: torch


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed))


@pytest.fixture(params=BLOCKS, ids=repr)
def _by(request, monkeypatch):
    codes = None if request.param is None else grams._compiled(request.param)
    monkeypatch.setattr(grams, "_codes", lambda: codes)
    monkeypatch.setattr(grams, "_is_worth_it", lambda *_: True)


@pytest.mark.usefixtures("_by")
@pytest.mark.parametrize("ones", [0, 1, 2])
def test_norms_of_products_are_those_of_whole_gradients(ones):
    x, gradient = drawn(UNITS, ROWS, INPUTS, seed=1), drawn(UNITS, ROWS, OUTPUTS, seed=2)
    whole = torch.bmm(gradient.double().transpose(1, 2), x.double())
    of_bias = gradient.double().sum(dim=1)
    expected = whole.square().sum(dim=(1, 2)) + ones * of_bias.square().sum(dim=1)
    found = grams.gram_squared_norms(x, gradient, ones=ones).double()
    assert bool((found >= expected).all())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.0)


@pytest.mark.usefixtures("_by")
@pytest.mark.parametrize(("size", "padding"), [(1, 0), (3, 0), (3, 1), (4, 2), (2, 3)])
def test_norms_of_windows_are_those_of_whole_gradients(size, padding):
    x = drawn(UNITS, ROWS, INPUTS, seed=3)
    windows = functional.pad(x, [0, 0, padding, padding]).unfold(1, size, 1).flatten(2)
    gradient = drawn(UNITS, windows.shape[1], OUTPUTS, seed=4)
    whole = torch.bmm(gradient.double().transpose(1, 2), windows.double())
    expected = whole.square().sum(dim=(1, 2)) + gradient.double().sum(dim=1).square().sum(dim=1)
    how = {"ones": 1, "size": size, "padding": padding}
    found = grams.gram_squared_norms(x, gradient, **how).double()
    assert bool((found >= expected).all())
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0.0)


@pytest.mark.usefixtures("_by")
def test_what_is_not_finite_has_no_norm():
    x, gradient = drawn(UNITS, ROWS, INPUTS, seed=5), drawn(UNITS, ROWS, OUTPUTS, seed=6)
    x[1, 3, 4], gradient[2, 0, 0] = float("nan"), float("inf")
    found = grams.gram_squared_norms(x, gradient, ones=1)
    assert found.isfinite().tolist() == [True, False, False]


def test_rows_that_are_turned_round_are_the_same_rows():
    x = drawn(ROWS, UNITS, INPUTS, seed=7).transpose(0, 1)
    gradient = drawn(ROWS, UNITS, OUTPUTS, seed=8).transpose(0, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grams, "_is_worth_it", lambda *_: True)
        found = grams.gram_squared_norms(x, gradient, ones=0)
    same = grams.gram_squared_norms(x.contiguous(), gradient.contiguous(), ones=0)
    torch.testing.assert_close(found, same, rtol=1e-4, atol=0.0)


def test_small_ones_and_single_units_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    large, small = drawn(2, 256, 256, seed=9), drawn(2, 2, 2, seed=9)
    assert grams._is_worth_it(large, small)
    assert not grams._is_worth_it(small, small)
    assert not grams._is_worth_it(large[:1], large[:1])
    assert not grams._is_worth_it(large.double(), large.double())


def test_without_llvmlite_torch_does_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "private_step.gram_kernel", None)
    monkeypatch.delattr("private_step.gram_kernel")
    assert grams._codes.__wrapped__() is None
