"""What a recording keeps of a terminal's screens."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.recording import LONGEST_S, SHORTEST_S, Frame, shortened


def frames(*moments: float) -> list[Frame]:
    return [Frame(at_s, (f"{at_s:.2f}",)) for at_s in moments]


def test_of_screens_that_follow_quickly_some_stay():
    step = SHORTEST_S / 4
    kept = shortened(frames(*(step * number for number in range(41))))
    gaps = [later.at_s - earlier.at_s for earlier, later in pairwise(kept)]
    assert len(gaps) >= 8
    assert all(SHORTEST_S <= gap < 1.5 * SHORTEST_S for gap in gaps)


def test_what_follows_at_once_is_shown_in_place_of_what_was_hardly_seen():
    first, second = shortened(frames(0.0, SHORTEST_S / 4, 2 * SHORTEST_S))
    assert (first.at_s, first.lines) == (0.0, (f"{SHORTEST_S / 4:.2f}",))
    assert second.at_s == 2 * SHORTEST_S


def test_long_waits_are_shortened():
    assert [frame.at_s for frame in shortened(frames(0.0, 60.0))] == [0.0, LONGEST_S]
