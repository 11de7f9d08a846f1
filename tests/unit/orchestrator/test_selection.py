from __future__ import annotations

from collections import Counter
from itertools import pairwise, product

import pytest

from orchestrator.selection import Draw, Presence, present, select

ALL = frozenset({"a", "b", "c"})
MANY = frozenset(f"gateway-{number}" for number in range(12))
NONE = frozenset[str]()
DRAW = Draw("2" * 64, "r", 1)


def here(*, absent=NONE, connected=NONE, quorum=2):
    return present(ALL, Presence(connected), absent=absent, quorum=quorum)


def chosen(candidates=MANY, *, invited=None, left=NONE, told=NONE, draw=DRAW):
    return select(candidates, Presence(left=left), invited=invited, told=told, draw=draw)


def test_everyone_who_accepted_is_present_unless_known_to_be_silent():
    assert here(quorum=3) == ALL


def test_who_was_silent_and_is_away_is_left_out():
    assert here(absent=frozenset("b")) == {"a", "c"}


def test_who_was_silent_and_is_back_is_present():
    assert here(absent=frozenset("b"), connected=frozenset("b")) == ALL


def test_below_the_quorum_everyone_may_come_back():
    assert here(absent=ALL) == ALL


def test_without_a_target_all_candidates_are_invited_in_order():
    assert chosen(ALL) == ("a", "b", "c")


@pytest.mark.parametrize("invited", [1, 5, 11, 12, 13])
def test_no_more_are_invited_than_wanted(invited):
    assert len(set(chosen(invited=invited))) == min(invited, 12)


def test_the_choice_is_the_same_again_whatever_the_order_of_the_candidates():
    assert chosen(frozenset(sorted(MANY)), invited=5) == chosen(
        frozenset(sorted(MANY, reverse=True)), invited=5
    )


def test_round_run_and_plan_each_change_the_choice():
    draws = [Draw(plan * 64, run, number) for plan, run, number in product("23", "rs", (1, 2))]
    assert len({chosen(invited=5, draw=draw) for draw in draws}) == len(draws)


def test_everyone_has_the_same_chance():
    """Of 4000 rounds of 5 of 12, each gateway has 1667, give or take 5 standard deviations."""
    rounds = [Draw("2" * 64, "r", number) for number in range(4000)]
    times = Counter(gateway for draw in rounds for gateway in chosen(invited=5, draw=draw))
    expected, width = 4000 * 5 / 12, (4000 * 5 / 12 * 7 / 12) ** 0.5
    assert times.keys() == MANY
    assert all(abs(count - expected) < 5 * width for count in times.values())


def test_rounds_are_drawn_apart_from_each_other():
    """Who was in a round is in the next with the same chance as everyone: 5 / 12 of 20,000."""
    rounds = [set(chosen(invited=5, draw=Draw("2" * 64, "r", n))) for n in range(4001)]
    again = sum(len(one & after) for one, after in pairwise(rounds))
    assert abs(again / 20_000 - 5 / 12) < 0.015


def test_a_retry_invites_first_those_who_have_paid_for_the_round():
    told = frozenset(sorted(MANY)[:4])
    again = chosen(invited=5, told=told)
    assert told < set(again)
    (fifth,) = set(again) - told
    assert fifth == next(g for g in sorted(MANY, key=DRAW.place) if g not in told)


def test_who_has_left_is_invited_last():
    left = frozenset(chosen(invited=5))
    assert not left & set(chosen(invited=7, left=left))
    assert len(left & set(chosen(invited=8, left=left))) == 1


def test_who_has_paid_and_left_goes_after_who_is_here():
    gone = frozenset(chosen(invited=1))
    assert not gone & set(chosen(invited=11, left=gone, told=gone))
