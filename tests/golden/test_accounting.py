from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.accounting import (
    Budget,
    PrivacyEvent,
    epsilon,
    epsilon_pld,
    epsilon_rdp,
    is_within,
    rounded_up,
)
from common.calibration import TargetOutOfReach, last_affordable_round, noise_for
from common.errors import ImpossibleEvent
from common.plan import Relation

pytestmark = pytest.mark.usefixtures("no_warning")

DELTA = 1e-5
CHEAP = PrivacyEvent(20.0, 1.0, 1)  # a fiftieth of a second to account
EVENTS = st.builds(
    PrivacyEvent, st.sampled_from([0.8, 4.0]), st.sampled_from([0.01, 0.1]), st.integers(1, 500)
)


def test_nothing_spent_is_epsilon_zero():
    spent = epsilon([], DELTA)
    assert (spent.pld, spent.rdp) == (0, 0)
    assert epsilon([PrivacyEvent(1, 1, 0)], DELTA).pld == 0


def test_an_epsilon_names_its_delta_and_relation():
    spent = epsilon([CHEAP], DELTA)
    assert (spent.delta, spent.relation) == (DELTA, Relation.ADD_OR_REMOVE_ONE)
    assert (spent.pld, spent.rdp) == (epsilon_pld([CHEAP], DELTA), epsilon_rdp([CHEAP], DELTA))


@given(st.lists(EVENTS, max_size=4), EVENTS)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_epsilon_is_a_function_of_what_was_run_not_of_how_it_was_booked(events, more):
    apart = [*events, more, more]
    together = [more.times(2), *reversed(events)]
    assert epsilon_rdp(apart, DELTA) == epsilon_rdp(together, DELTA)
    assert epsilon_rdp(apart, DELTA) >= epsilon_rdp(events, DELTA)


def test_low_orders_that_do_not_converge_are_left_out_silently():
    assert math.isfinite(epsilon_rdp([PrivacyEvent(1.0, 0.3, 10)], DELTA))


@pytest.mark.parametrize(
    "event",
    [
        PrivacyEvent(1e-3, 0.5, 10**9),
        PrivacyEvent(1e-300, 0.5, 1),
        PrivacyEvent(1000.0, 1e-5, 10**11),
    ],
)
def test_a_hostile_plan_gets_its_answer_at_once(event):
    assert epsilon_pld([event], DELTA) == epsilon_rdp([event], DELTA)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ((0.0, 0.5, 1), "noise_multiplier is 0.0, must be above 0 and finite"),
        ((math.inf, 0.5, 1), "noise_multiplier is inf, must be above 0 and finite"),
        ((1.0, 1.5, 1), "sampling_rate is 1.5, must be above 0 and at most 1"),
        ((1.0, 0.5, -1), "steps is -1, must be at least 0"),
    ],
)
def test_impossible_events_are_refused(values, sentence):
    with pytest.raises(ImpossibleEvent, match=sentence):
        PrivacyEvent(*values)


@pytest.mark.parametrize("spent", [(), (CHEAP,)])
@pytest.mark.parametrize("budget", [0.4, 0.61])
def test_the_last_affordable_round_is_exact(spent, budget):
    allowed = Budget(budget, DELTA)
    how = {"budget": allowed, "delta": DELTA}
    last = last_affordable_round(spent, CHEAP, **how, rounds=100)
    assert 0 < last < 100
    fits = [
        is_within(allowed, spent=spent, planned=CHEAP.times(rounds), delta=DELTA)
        for rounds in (last, last + 1)
    ]
    assert fits == [True, False]


def test_the_last_affordable_round_is_exact_where_coarse_buckets_mislead():
    budget, sampled = Budget(0.03, DELTA), PrivacyEvent(50.0, 0.05, 1)
    last = last_affordable_round((), sampled, budget=budget, delta=DELTA, rounds=1000)
    spends = [epsilon_pld([sampled.times(rounds)], DELTA) for rounds in (last, last + 1)]
    assert spends[0] <= 0.03 < spends[1]


def test_all_rounds_are_affordable_under_a_large_budget():
    assert last_affordable_round((), CHEAP, budget=Budget(9, DELTA), delta=DELTA, rounds=7) == 7


def test_no_round_is_affordable_when_the_budget_is_spent():
    spent = [CHEAP.times(1000)]
    assert last_affordable_round(spent, CHEAP, budget=Budget(1, DELTA), delta=DELTA, rounds=7) == 0


def test_the_first_plan_is_judged_by_pld_and_what_follows_by_the_filter():
    budget, all_steps = Budget(0.85, DELTA), CHEAP.times(20)
    spent = epsilon([all_steps], DELTA)
    assert spent.pld < 0.85 < spent.rdp
    assert is_within(budget, spent=(), planned=all_steps, delta=DELTA)
    assert not is_within(budget, spent=(CHEAP.times(19),), planned=CHEAP, delta=DELTA)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 20.0])
@pytest.mark.parametrize("rate", [0.01, 0.3])
def test_the_one_order_of_the_filter_wastes_little(sigma, rate):
    budget, step = Budget(8.0, DELTA), PrivacyEvent(sigma, rate, 1)
    last = last_affordable_round([step], step, budget=budget, delta=DELTA, rounds=10**9)
    assert epsilon_rdp([step.times(last + 1)], DELTA) <= 8
    assert epsilon_rdp([step.times(round(1.1 * (last + 2)))], DELTA) > 8


def test_the_order_is_fixed_by_the_first_event_whatever_follows():
    budget, first, other = Budget(3.0, DELTA), PrivacyEvent(1.0, 0.01, 10), PrivacyEvent(9, 1, 1)
    assert budget.order_for(first) != budget.order_for(other)
    order = budget.order_for(first)
    gaussian = order / 2 / 9**2
    room = 3.0 - math.log1p(-1 / order) + math.log(DELTA * order) / (order - 1)
    alone = last_affordable_round([first], other, budget=budget, delta=DELTA, rounds=10**4)
    assert alone in {int(room / gaussian), int(room / gaussian) - 1}


@pytest.mark.parametrize("target", [0.05, 0.3])
def test_calibrated_noise_is_enough_and_no_more(target):
    how = {"sampling_rate": 1.0, "steps": 2}
    sigma = noise_for(target, **how, delta=DELTA)
    less = PrivacyEvent(sigma - 1e-4, **how)
    assert epsilon_pld([PrivacyEvent(sigma, **how)], DELTA) <= target
    assert epsilon_pld([less], DELTA) > target
    assert sigma == round(sigma, 4)


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(TargetOutOfReach, match="no noise multiplier up to 1000000 reaches"):
        noise_for(1e-12, sampling_rate=1.0, steps=1, delta=1e-12)


@given(st.floats(0, 1e6), st.integers(0, 6))
def test_printed_epsilon_is_never_rounded_down(value, decimals):
    printed = float(rounded_up(value, decimals))
    assert value <= printed <= value + 10**-decimals + 1e-9


def test_an_infinite_epsilon_prints_as_such():
    assert rounded_up(math.inf) == "inf"
