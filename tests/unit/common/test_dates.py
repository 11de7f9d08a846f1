"""How far two clocks are apart, from an answer's date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from common.dates import ClockApart, check_clocks, date_in, in_words

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("trailers", "found"),
    [
        (None, None),
        ((("other", "x"),), None),
        ((("date", "Thu, 01 Jan 2026 12:00:00 GMT"),), NOON),
        ((("date", "Thu, 01 Jan 2026 12:00:00 -0000"),), NOON),
        ((("date", "today"),), None),
        ((("date", b"Thu, 01 Jan 2026 12:00:00 GMT"),), None),
    ],
)
def test_the_date_is_read_as_http_writes_it_and_nothing_else_is_taken(trailers, found):
    assert date_in(trailers) == found


def test_clocks_that_agree_within_five_minutes_do():
    assert check_clocks(NOON, NOON + timedelta(minutes=4)) == timedelta(minutes=-4)


@pytest.mark.parametrize(("hours", "said"), [(2, "2.0 hours ahead of"), (-2, "2.0 hours behind")])
def test_clocks_that_do_not_agree_are_told_which_way(hours, said):
    with pytest.raises(ClockApart, match=said):
        check_clocks(NOON + timedelta(hours=hours), NOON)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "5 seconds"), (90, "1.5 minutes"), (5400, "1.5 hours"), (172_800, "2.0 days")],
)
def test_a_span_is_told_in_the_unit_that_fits(seconds, words):
    assert in_words(timedelta(seconds=seconds)) == words
