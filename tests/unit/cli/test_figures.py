"""Which figures are told once, and how long rounds took."""

from __future__ import annotations

from cli.figure_stores import fresh, plain
from cli.figures import Figures, Point, RoundTimes, with_times


def test_a_round_has_a_time_when_its_begin_and_its_end_were_seen():
    times = RoundTimes()
    for published, now in (
        (2, 10.0),
        (2, 11.0),
        (3, 14.0),
        (3, 15.0),
        (5, 20.0),
        (6, 27.0),
        (7, 28.0),
    ):
        times.see(published, now)
    assert times.points == [Point("seconds/round", 6, 7.0), Point("seconds/round", 7, 1.0)]
    assert with_times(Figures((), {}, {}), times).points == tuple(times.points)


def test_a_point_is_new_once():
    known = set()
    points = [Point("f1/dev", 1, 0.5), Point("f1/dev", 2, 0.6)]
    assert fresh(points[:1], known) == points[:1]
    assert fresh(points, known) == points[1:]


def test_what_is_no_number_and_no_text_is_json():
    assert plain({"labels": ["a"], "rate": 0.5, "keep": False, "reputation": None}) == {
        "labels": '["a"]',
        "rate": 0.5,
        "keep": False,
        "reputation": "null",
    }
