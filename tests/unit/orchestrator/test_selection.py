from __future__ import annotations

from orchestrator.selection import select

ALL = frozenset({"a", "b", "c"})
NONE = frozenset[str]()


def test_everyone_who_accepted_is_invited_in_order():
    assert select(ALL, absent=NONE, connected=NONE, quorum=3) == ("a", "b", "c")


def test_who_was_silent_and_is_away_is_left_out():
    assert select(ALL, absent=frozenset("b"), connected=NONE, quorum=2) == ("a", "c")


def test_who_was_silent_and_is_back_is_invited():
    back = frozenset("b")
    assert select(ALL, absent=back, connected=back, quorum=2) == ("a", "b", "c")


def test_below_the_quorum_everyone_may_come_back():
    assert select(ALL, absent=ALL, connected=NONE, quorum=2) == ("a", "b", "c")
