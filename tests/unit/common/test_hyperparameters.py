"""Defaults, profiles, overrides, floors and bounds against a truth table written on its own."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.adaptive_clipping import AdaptiveClipping, sum_noise_multiplier
from common.hyperparameters import Bounds, Hyperparameters, Optimizer, Overrides, Range
from common.protocol import RefusalReason
from gateway.policy import Accepted, Policy, Refused, review
from tests.unit.gateway.toys import CLINIC, HOW, plan

SIGMAS = [10.0, 20.0, 30.0, 40.0]
MAYBE = [None, *SIGMAS]
GENEROUS = {"epsilon_budget": 1e6}
ADAPTIVE = HOW.model_copy(
    update={
        "noise_multiplier": 1.0,
        "sampling_rate": 1.0,
        "adaptive_clipping": AdaptiveClipping(smallest=0.1, largest=10.0),
    }
)  # the clinic expects 40 units in a batch


def expected(default, profile, override, floor, least, most):
    """The truth table: what becomes of a noise multiplier; None where no plan can be made."""
    assigned = default if profile is None else profile
    chosen = assigned if override is None else override
    low = 0 if least is None else least
    high = 1e9 if most is None or least is None else most
    if least is not None and not all(low <= given <= high for given in (default, assigned)):
        return None  # the other gateway has no profile, so the default counts too
    if not low <= chosen <= high or (least is None and chosen != assigned):
        return RefusalReason.OUTSIDE_BOUNDS
    if floor is not None and chosen < floor:
        return RefusalReason.NOISE_FLOOR
    return chosen


def outcome(default, profile, override, floor, least, most):
    """What the plan and the review really make of it."""
    how = HOW.model_copy(update={"noise_multiplier": default, "sampling_rate": 1.0})
    try:
        limits = None if least is None else Range(minimum=least, maximum=most)
        offered = plan(
            how,
            rounds=1,
            bounds=Bounds(noise_multiplier=limits),
            profile=Overrides(noise_multiplier=profile),
        )
    except ValidationError:
        return None
    policy = Policy(**GENEROUS, noise_multiplier_floor=floor)
    verdict = review(offered, CLINIC, Overrides(noise_multiplier=override), policy, ())
    if isinstance(verdict, Accepted):
        assert verdict.effective == how.model_copy(
            update={"noise_multiplier": verdict.effective.noise_multiplier}
        )
        return verdict.effective.noise_multiplier
    return verdict.reason


@given(
    default=st.sampled_from(SIGMAS),
    profile=st.sampled_from(MAYBE),
    override=st.sampled_from(MAYBE),
    floor=st.sampled_from(MAYBE),
    limits=st.tuples(st.sampled_from(MAYBE), st.sampled_from(MAYBE)),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_becomes_of_a_value_equals_the_truth_table(default, profile, override, floor, limits):
    case = (default, profile, override, floor, *limits)
    assert outcome(*case) == expected(*case)


def test_the_truth_table_has_every_outcome():
    cases = product(SIGMAS, MAYBE, MAYBE, MAYBE, MAYBE, MAYBE)
    found = {expected(*case) for case in cases}
    assert found == {*MAYBE, RefusalReason.OUTSIDE_BOUNDS, RefusalReason.NOISE_FLOOR}


ELSEWHERE = {  # every other field: a value that the default is not, and a bound that it breaks
    "learning_rate": (2.0, Range(maximum=1.0), "at most 1.0"),
    "clipping_norm": (0.1, Range(minimum=0.5), "at least 0.5"),
    "sampling_rate": (0.9, Range(maximum=0.6), "at most 0.6"),
    "local_steps": (9, Range(maximum=4), "at most 4.0"),
    "momentum": (0.9, Range(maximum=0.5), "at most 0.5"),
    "weight_decay": (0.3, Range(maximum=0.1), "at most 0.1"),
    "warmup_steps": (7, Range(maximum=3), "at most 3.0"),
    "optimizer": (Optimizer.ADAMW, (), "one of sgd"),
}


@pytest.mark.parametrize("field", ELSEWHERE)
def test_every_refusal_names_field_value_bound_and_rule(field):
    value, limits, bound = ELSEWHERE[field]
    offered = plan(bounds=Bounds(**{field: limits}))
    verdict = review(offered, CLINIC, Overrides(**{field: value}), Policy(**GENEROUS), ())
    assert verdict == Refused(
        RefusalReason.OUTSIDE_BOUNDS, field, f"{field} = {value}: the plan requires {bound}"
    )


@pytest.mark.parametrize("field", ELSEWHERE)
def test_a_field_without_a_bound_may_not_be_overridden(field):
    value, _, _ = ELSEWHERE[field]
    verdict = review(plan(), CLINIC, Overrides(**{field: value}), Policy(**GENEROUS), ())
    assert (verdict.reason, verdict.field) == (RefusalReason.OUTSIDE_BOUNDS, field)


def test_a_choice_among_those_of_the_plan_is_taken():
    offered = plan(bounds=Bounds(optimizer=(Optimizer.ADAMW,)))
    choice = Overrides(optimizer=Optimizer.ADAMW)
    verdict = review(offered, CLINIC, choice, Policy(**GENEROUS), ())
    assert verdict.effective.optimizer is Optimizer.ADAMW


def test_every_field_can_be_overridden_and_bounded_but_how_clipping_adapts():
    fields = set(Hyperparameters.model_fields) - {"adaptive_clipping"}
    assert set(Overrides.model_fields) == set(Bounds.model_fields) == fields


def test_what_is_overridden_of_a_whole_set_gives_it_again():
    other = ADAPTIVE.model_copy(update={"noise_multiplier": 0.5, "optimizer": Optimizer.ADAMW})
    assert Overrides.of(other).over(ADAPTIVE) == other


@pytest.mark.parametrize(
    ("override", "field", "sentence"),
    [
        ({"noise_multiplier": 3.9}, None, ""),
        ({"noise_multiplier": 4.0}, "noise_multiplier", "raise the count's noise above 2.0"),
        ({"sampling_rate": 0.1}, "noise_multiplier", "noise of standard deviation 0.2 on the"),
        ({"clipping_norm": 0.05}, "clipping_norm", "smallest = 0.1 and largest = 10.0"),
    ],
)
def test_an_override_that_leaves_a_count_unpaid_is_refused_by_name(override, field, sentence):
    wide, rates = Range(minimum=0.01, maximum=100), Range(minimum=0.01, maximum=1)
    offered = plan(
        ADAPTIVE,
        bounds=Bounds(noise_multiplier=wide, sampling_rate=rates, clipping_norm=wide),
    )
    verdict = review(offered, CLINIC, Overrides(**override), Policy(**GENEROUS), ())
    if field is None:
        assert isinstance(verdict, Accepted)
        return
    assert (verdict.reason, verdict.field) == (RefusalReason.OUTSIDE_BOUNDS, field)
    assert sentence in verdict.sentence


def test_the_sum_alone_has_more_noise_where_a_count_is_paid_too():
    assert HOW.sum_noise_multiplier(20.0) == HOW.noise_multiplier
    raised = ADAPTIVE.sum_noise_multiplier(40.0)
    assert raised == sum_noise_multiplier(ADAPTIVE.noise_multiplier, count_noise=2.0)


def test_what_is_not_set_is_left_out_of_what_keys_are_bound_to():
    """Keys and records of runs at a fixed norm are those of before there was another way."""
    assert HOW.to_json() == (
        '{"learning_rate":0.5,"clipping_norm":1.0,"noise_multiplier":2.0,"sampling_rate":0.5,'
        '"local_steps":2,"optimizer":"sgd","momentum":0.0,"weight_decay":0.0,"warmup_steps":0}'
    )
    assert Hyperparameters.model_validate_json(ADAPTIVE.to_json()) == ADAPTIVE


@pytest.mark.parametrize(
    ("field", "limits"),
    [
        ("noise_multiplier", Range(maximum=3)),
        ("sampling_rate", Range(minimum=0.1)),
        ("local_steps", Range(minimum=1)),
    ],
)
def test_bounds_that_let_a_gateway_spend_without_end_are_refused(field, limits):
    with pytest.raises(ValidationError, match=f"bounds.{field}.* must be given and above 0"):
        Bounds(**{field: limits})


def test_an_empty_range_is_refused():
    with pytest.raises(ValidationError, match=r"minimum 2.0 is above maximum 1.0"):
        Range(minimum=2, maximum=1)
