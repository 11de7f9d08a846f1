"""What bad gateways do to a real model, and who is set aside; figures in docs/explanation."""

from __future__ import annotations

from functools import cache

import pytest

from common.bad_updates import PLAIN, Reputation, UpdateNorm
from tests.poison.learning import ATTACKS, BAD, SITES, Learned, learned

ROUNDS = 40
TIGHT = UpdateNorm(factor=1.0)


@cache
def after(attack: str, how: UpdateNorm, *, scored: bool = True) -> Learned:
    reputation = Reputation() if scored and how is not PLAIN else None
    return learned(ATTACKS.get(attack), how, rounds=ROUNDS, reputation=reputation)


def lost(attack: str, how: UpdateNorm) -> float:
    """Return how much accuracy an attack costs, in points."""
    return 100.0 * (after("none", PLAIN).accuracy - after(attack, how).accuracy)


def test_the_model_learns():
    assert after("none", PLAIN).accuracy > 0.92


def test_without_an_attack_the_guards_cost_nothing():
    assert abs(lost("none", UpdateNorm())) <= 0.5
    assert lost("none", TIGHT) <= 1.0
    assert after("none", UpdateNorm()).in_quarantine == 0


@pytest.mark.parametrize("attack", ["ten times", "noise"])
def test_by_default_large_updates_cost_little(attack):
    assert lost(attack, UpdateNorm()) <= 3.0


def test_by_default_reversed_large_updates_cost_little_where_the_mean_loses_the_model():
    assert lost("ten times, flipped", PLAIN) > 50.0
    assert lost("ten times, flipped", UpdateNorm()) <= 3.0


def test_the_wide_bound_alone_would_not_do():
    clipped = after("ten times, flipped", UpdateNorm(), scored=False)
    assert clipped.accuracy < after("ten times, flipped", UpdateNorm()).accuracy - 0.2


def test_a_tight_bound_does_what_the_wide_one_cannot_for_updates_just_below_it():
    assert lost("three times, flipped", UpdateNorm()) > 15.0
    assert lost("three times, flipped", TIGHT) <= 4.0


def test_who_sends_large_updates_is_set_aside_and_nobody_else():
    found = after("ten times, flipped", UpdateNorm())
    assert found.run.records.quarantined == set(BAD)
    assert found.of_honest == 0


def test_honest_sites_with_unlike_data_are_not_set_aside():
    found = learned(
        None,
        UpdateNorm(),
        rounds=200,
        seed=5,
        concentration=0.3,
        reputation=Reputation(),
    )
    gateway_rounds = 200 * len(SITES)
    assert found.in_quarantine <= gateway_rounds / 100
    assert found.run.records.quarantined == set()
    assert found.accuracy > 0.93


def test_thresholds_that_are_too_low_would_be_seen():
    strict = Reputation(watch=0.01, quarantine=0.02)
    found = learned(None, TIGHT, rounds=20, concentration=0.3, reputation=strict)
    assert found.in_quarantine > 20 * len(SITES) / 100
