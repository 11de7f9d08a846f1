from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.packing import UnitsOverlap, checked, packed

QUICK = settings(max_examples=300, deadline=None, derandomize=True)
SIZES = st.lists(st.integers(1, 40), max_size=60)
MOST = st.integers(1, 64)


def units_of(sizes: list[int]) -> list[tuple[int, ...]]:
    """Units of these sizes, whose rows are numbered one after the other."""
    rows = iter(range(sum(sizes)))
    return [tuple(next(rows) for _ in range(size)) for size in sizes]


@given(sizes=SIZES, most=MOST)
@QUICK
def test_every_unit_is_there_whole_and_in_its_place(sizes, most):
    units = units_of(sizes)
    assert list(chain.from_iterable(some.units for some in packed(units, most))) == units


@given(sizes=SIZES, most=MOST)
@QUICK
def test_what_is_worked_on_at_once_is_bounded_padding_included(sizes, most):
    for some in packed(units_of(sizes), most):
        largest = max(map(len, some.units))
        assert some.is_large == (largest > most)
        assert len(some.units) == 1 if some.is_large else largest * len(some.units) <= most


@given(sizes=SIZES, most=MOST)
@QUICK
def test_pieces_hold_the_same_rows_and_none_is_too_long(sizes, most):
    for some in packed(units_of(sizes), most):
        pieces = list(some.pieces())
        assert list(chain.from_iterable(pieces)) == some.rows
        assert all(0 < len(piece) <= most for piece in pieces)
        assert len(pieces) == 1 or some.is_large


def test_examples_fill_every_micro_batch_but_the_last():
    assert [len(some.rows) for some in packed(units_of([1] * 150), 64)] == [64, 64, 22]


def test_records_are_numbered_by_their_unit():
    (some,) = packed([(7,), (3, 4), (9,)], 64)
    assert (some.rows, some.of_unit) == ([7, 3, 4, 9], [0, 1, 1, 2])


def test_units_that_share_no_row_pass_and_need_not_hold_every_row():
    assert checked([(3,), (0, 2)], 5) == [(3,), (0, 2)]


@pytest.mark.parametrize("units", [[(0, 1), (1,)], [(0, 0)], [(5,)], [(-1,)], [(0,), ()]])
def test_units_that_share_a_row_or_have_none_are_refused(units):
    with pytest.raises(UnitsOverlap, match="mend the dataset's `units`"):
        checked(units, 5)


def test_of_no_units_nothing_is_made():
    assert list(packed([], 64)) == []
