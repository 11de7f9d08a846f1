from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from common.accounting import PrivacyEvent, epsilon_pld, round_event
from common.hyperparameters import Bounds, Overrides, Range
from common.protocol import RefusalReason
from gateway.policy import Accepted, Policy, Refused, review
from tests.unit.gateway.toys import CLINIC, HOW, plan

CHEAP = HOW.model_copy(update={"noise_multiplier": 20.0, "sampling_rate": 1.0, "local_steps": 1})
NOTHING = Overrides()
TINY = PrivacyEvent(100.0, 1.0, 1)  # charged by another run


def judged(offered, *, budget=1e6, spent=(), overrides=NOTHING, **policy):
    return review(offered, CLINIC, overrides, Policy(epsilon_budget=budget, **policy), spent)


def test_a_plan_within_all_rules_is_accepted_with_its_projected_epsilon():
    verdict = judged(plan(CHEAP, rounds=3))
    assert isinstance(verdict, Accepted)
    assert verdict.effective == CHEAP
    assert verdict.projected.pld == epsilon_pld([PrivacyEvent(20.0, 1.0, 3)], 1e-5)


def test_a_gateway_that_is_not_invited_is_told_so():
    verdict = review(plan(), "stranger", NOTHING, Policy(epsilon_budget=1e6), ())
    sentence = "participants: the plan 'trial' does not invite 'stranger'"
    assert verdict == Refused(RefusalReason.NOT_INVITED, "participants", sentence)


def test_updates_are_kept_only_where_the_site_allows_it():
    offered = plan(CHEAP).model_copy(update={"keep_updates": True})
    verdict = judged(offered)
    assert (verdict.reason, verdict.field) == (RefusalReason.KEPT_UPDATES, "keep_updates")
    assert verdict.sentence == (
        "keep_updates = true: this gateway's policy requires false, as policy.allow_kept_updates is"
    )
    assert isinstance(judged(offered, allow_kept_updates=True), Accepted)
    assert isinstance(judged(plan(CHEAP), allow_kept_updates=True), Accepted)


def test_less_noise_than_this_gateways_floor_is_refused():
    verdict = judged(plan(), noise_multiplier_floor=2.5)
    assert (verdict.reason, verdict.field) == (RefusalReason.NOISE_FLOOR, "noise_multiplier")
    expected = (
        "noise_multiplier = 2.0: this gateway's policy requires at least 2.5: ask the operator for "
        "more noise, or lower policy.noise_multiplier_floor"
    )
    assert verdict.sentence == expected


def test_a_larger_delta_than_the_ceiling_is_refused():
    verdict = judged(plan(delta=1e-3))
    assert (verdict.reason, verdict.field) == (RefusalReason.DELTA, "privacy.delta")
    assert "privacy.delta = 0.001: this gateway's policy requires at most 1e-05" in verdict.sentence


def test_a_promise_below_what_the_bounds_allow_is_refused():
    bounds = Bounds(noise_multiplier=Range(minimum=10.0))
    verdict = judged(plan(CHEAP, bounds=bounds, rounds=4, target_epsilon=0.7))
    assert (verdict.reason, verdict.field) == (
        RefusalReason.TARGET_EPSILON,
        "privacy.target_epsilon",
    )
    loosest = epsilon_pld([PrivacyEvent(10.0, 1.0, 4)], 1e-5)
    assert re.search(r"at least (\d\.\d+)", verdict.sentence)[1] == f"{loosest + 5e-5:.4f}"


@given(
    sigma=st.sampled_from([70.0, 90.0]),
    budget=st.floats(0.03, 0.08),
    earlier=st.sampled_from([True, True, True, False]),
    data=st.data(),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_refusal_names_the_last_round_that_would_pass(sigma, budget, earlier, data):
    how = CHEAP.model_copy(update={"noise_multiplier": sigma})
    spent = (TINY,) * (1 + data.draw(st.integers(0, 3))) if earlier else ()
    verdict = judged(plan(how, rounds=40), budget=budget, spent=spent)
    assert (verdict.reason, verdict.field) == (RefusalReason.EPSILON_BUDGET, "rounds.count")
    named = re.search(r"round (\d+) would be the last", verdict.sentence)
    last = int(named[1]) if named else 0
    assert last or "no round is allowed" in verdict.sentence
    fits = [
        isinstance(judged(plan(how, rounds=n), budget=budget, spent=spent), Accepted)
        for n in (max(1, last), last + 1)
    ]
    assert fits == [last > 0, False]


def test_a_budget_refusal_shows_both_accountants_delta_and_relation():
    sentence = judged(plan(CHEAP, rounds=20), budget=0.4).sentence
    assert sentence == (
        "rounds.count = 20 rounds, for an epsilon of 0.8198 by PLD and 0.8970 by RDP "
        "(add_or_remove_one, delta 1e-05) in all on these data: this gateway's policy requires an "
        "epsilon of at most 0.4; round 5 would be the last one allowed: ask the operator for more "
        "noise or fewer rounds, or raise policy.epsilon_budget"
    )


def test_what_other_runs_charged_counts():
    offered = plan(CHEAP, rounds=4)
    assert isinstance(judged(offered, budget=0.5), Accepted)
    verdict = judged(offered, budget=0.5, spent=(PrivacyEvent(20.0, 1.0, 3),))
    assert verdict.reason is RefusalReason.EPSILON_BUDGET


def test_an_override_inside_the_bounds_changes_what_is_projected():
    offered = plan(CHEAP, bounds=Bounds(noise_multiplier=Range(minimum=20.0)))
    verdict = judged(offered, overrides=Overrides(noise_multiplier=30.0))
    assert verdict.effective.noise_multiplier == 30.0
    assert verdict.projected.pld < judged(plan(CHEAP)).projected.pld


def test_a_round_is_projected_with_its_rate_noise_and_steps():
    assert round_event(HOW) == PrivacyEvent(2.0, 0.5, 2)
