"""One product, by oneDNN or by torch: the same numbers whatever the operands' layout is."""

from __future__ import annotations

import pytest
import torch

from private_step import products
from tests.unit.private_step.naive import generator

A = torch.randn(3, 5, 8, generator=generator(1))
B = torch.randn(4, 8, generator=generator(2))
BIAS = torch.randn(4, generator=generator(3))

LAYOUTS = {
    "plain": (A, B),
    "turned": (A[0].t().contiguous().t(), B.t().contiguous().t()),
    "every second column": (torch.cat([A, A], dim=2)[:, :, ::2], torch.cat([B, B], dim=1)[:, ::2]),
    "a piece of the columns": (torch.cat([A, A], dim=2)[:, :, 3:11], torch.cat([B, B], 1)[:, 3:11]),
    "no rows": (A[:0], B),
    "one dimension": (A[0, 0], B),
}


@pytest.fixture(params=["onednn", "torch"], autouse=True)
def library(request, monkeypatch):
    if request.param == "torch":
        monkeypatch.setattr(products, "_has_onednn", lambda *_: False)
    return request.param


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [None, BIAS])
def test_a_product_does_not_depend_on_the_layout(layout, bias):
    a, b = LAYOUTS[layout]
    expected = a.double() @ b.double().t() + (0 if bias is None else bias.double())
    found = products.product(a, b, bias)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_result_may_be_changed_in_place_within_a_graph():
    assert not products.product(A, B)._is_view()


@pytest.mark.parametrize("kind", [("cuda", torch.float32), ("cpu", torch.float64)])
def test_only_what_onednn_takes_goes_to_it(kind, library):
    if library == "onednn":
        assert not products._has_onednn(*kind)


def test_without_the_operation_torch_does_the_work(monkeypatch, library):
    if library == "onednn":
        monkeypatch.setattr(products, "_PRODUCT", "no_such_operation")
        assert not products._has_onednn.__wrapped__("cpu", torch.float32)
