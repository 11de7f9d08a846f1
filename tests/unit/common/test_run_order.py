"""An order as text: what StartRun takes comes out as it went in, or one sentence says why not."""

from __future__ import annotations

import pytest

from common.run_order import HEAD, TAIL, OrderUnreadable, order_from_text, order_to_text
from common.wire import signature_from_proto
from tests.fakes import plan_of
from tests.signing import order

RUN, PLAN, SIGNATURE = order("spring", plan_of("a", "b"))
TEXT = order_to_text(RUN, PLAN, SIGNATURE)


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), f"\n  {TEXT}\n\n"])
def test_an_order_comes_out_as_it_went_in(text):
    found = order_from_text(text)
    assert (found.run_id, found.plan, signature_from_proto(found)) == (RUN, PLAN, SIGNATURE)


def test_two_orders_of_one_run_are_the_same_text():
    assert order_to_text(RUN, PLAN, SIGNATURE) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "first.order",
        TEXT.removesuffix(f"{TAIL}\n"),
        TEXT.removeprefix(f"{HEAD}\n"),
        f"{HEAD}\n!!!!\n{TAIL}",
        f"{HEAD}\nAAA\n{TAIL}",
        f"{HEAD}\n/////w==\n{TAIL}",
    ],
)
def test_what_is_no_order_is_refused_in_one_sentence(text):
    with pytest.raises(OrderUnreadable, match="take all of the file"):
        order_from_text(text)
