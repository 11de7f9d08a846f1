"""The plan: what cannot be is refused before anybody hears of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import wire
from common.bad_updates import NormMode, Reputation, UpdateNorm
from common.hyperparameters import Bounds, Hyperparameters, Overrides, Range
from common.plan import (
    Participant,
    Plan,
    Privacy,
    Rounds,
    ServerOptimizer,
    TaskSpec,
    Unit,
    Weighting,
    two_digits,
)
from common.update_form import UpdateForm
from common.weights import Layout
from common.wire_formats import WireFormat
from common.wire_values import InvalidMessage

VALUES = Hyperparameters(
    learning_rate=1.0, clipping_norm=1.0, noise_multiplier=2.0, sampling_rate=0.5, local_steps=2
)
ROUNDS = {"count": 3, "maximum": 5, "quorum": 2, "deadline_s": 10.0}


def plan_of(**changes) -> Plan:
    """Two gateways, three rounds."""
    task = TaskSpec(name="t", digest="a" * 64, labels=("x",), layout=Layout.of({"w": (2, 3)}))
    fields = {
        "name": "trial",
        "task": task,
        "initial_weights": "b" * 64,
        "participants": (
            Participant(gateway="a", declared_units=1234),
            Participant(gateway="b", declared_units=56),
        ),
        "rounds": Rounds(count=3, maximum=5, quorum=2, deadline_s=10),
        "privacy": Privacy(delta=1e-5, target_epsilon=8),
        "hyperparameters": VALUES,
    }
    return Plan(**{**fields, **changes})


def adaptive(**changes) -> dict[str, object]:
    """A table of hyperparameters under which clipping adapts."""
    return {**VALUES.model_dump(), "adaptive_clipping": changes}


@pytest.mark.parametrize("given", [{}, {"count_noise": 4.0, "target_quantile": 0.0}])
def test_how_clipping_adapts_travels_with_the_plan_and_is_part_of_its_name(given):
    how = adaptive(smallest=0.1, largest=3.0, **({"count_noise": 3.0} | given))
    plan = plan_of(hyperparameters=how)
    data = wire.plan_to_bytes(plan)
    assert wire.plan_from_bytes(data) == plan
    softer = plan_of(hyperparameters=adaptive(smallest=0.1, largest=3.0, rate=0.1, count_noise=3.0))
    names = {wire.plan_id(wire.plan_to_bytes(each)) for each in (plan, plan_of(), softer)}
    assert len(names) == 3


def test_a_fixed_norm_leaves_no_trace_in_a_plans_bytes():
    message = wire.PLAN.to_message(plan_of())
    assert not message.hyperparameters.HasField("adaptive_clipping")


def test_a_plan_expects_as_many_units_as_are_declared_times_their_rate():
    plan = plan_of(profiles={"b": Overrides(sampling_rate=0.25)})
    assert [plan.expected_units(name) for name in "abc"] == [617.0, 14.0, 0.0]
    other = VALUES.model_copy(update={"sampling_rate": 0.1})
    assert plan.expected_units("a", other) == pytest.approx(123.4)


def test_a_plan_comes_back_from_its_bytes_and_keeps_its_name():
    plan = plan_of(
        profiles={"b": Overrides(learning_rate=0.1)},
        bounds=Bounds(learning_rate=Range(minimum=0.01, maximum=2.0)),
        server=ServerOptimizer(momentum=0.9, schedule="linear", tail_average=0.3),
        weighting=Weighting.EQUAL,
    )
    data = wire.plan_to_bytes(plan)
    assert wire.plan_from_bytes(data) == plan
    assert wire.plan_id(wire.plan_to_bytes(wire.plan_from_bytes(data))) == wire.plan_id(data)


@pytest.mark.parametrize("unit", Unit)
def test_the_unit_travels_with_the_plan_and_is_part_of_its_name(unit):
    plan = plan_of(privacy=Privacy(unit=unit, delta=1e-5, target_epsilon=8))
    data = wire.plan_to_bytes(plan)
    assert wire.plan_from_bytes(data).privacy.unit is unit
    assert (wire.plan_id(data) == wire.plan_id(wire.plan_to_bytes(plan_of()))) == (
        unit is Unit.EXAMPLE
    )


@pytest.mark.parametrize("wire_format", WireFormat)
def test_the_wire_format_travels_with_the_plan_and_is_part_of_its_name(wire_format):
    plan = plan_of(wire_format=wire_format)
    data = wire.plan_to_bytes(plan)
    assert wire.plan_from_bytes(data) == plan
    assert wire.plan_from_bytes(data).update_form == UpdateForm(plan.task.layout, wire_format)
    assert (wire.plan_id(data) == wire.plan_id(wire.plan_to_bytes(plan_of()))) == (
        wire_format is WireFormat.FLOAT32
    )


@pytest.mark.parametrize("keep", [True, False])
def test_whether_updates_are_kept_travels_with_the_plan_and_is_part_of_its_name(keep):
    plan = plan_of(keep_updates=keep)
    data = wire.plan_to_bytes(plan)
    assert wire.plan_from_bytes(data) == plan
    assert (wire.plan_id(data) == wire.plan_id(wire.plan_to_bytes(plan_of()))) == (not keep)


def test_a_plan_in_float32_has_the_name_that_it_had_before_there_were_formats():
    name = wire.plan_id(wire.plan_to_bytes(plan_of()))
    assert name == "6a9086c943b2ec4622fa4e2b848f7323158ff1fd01761737d34687692c4b0663"


GUARDS = [
    {"update_norm": UpdateNorm()},
    {"update_norm": UpdateNorm(mode=NormMode.FIXED, bound=2.5)},
    {"reputation": Reputation()},
    {"reputation": Reputation(watch=0.5, quarantine=2.0)},
]


@pytest.mark.parametrize("guard", GUARDS)
def test_what_guards_the_average_travels_with_the_plan_and_is_part_of_its_name(guard):
    plan = plan_of(**guard)
    data = wire.plan_to_bytes(plan)
    assert wire.plan_from_bytes(data) == plan
    assert wire.plan_id(data) != wire.plan_id(wire.plan_to_bytes(plan_of()))


def test_a_plan_of_before_has_no_guards():
    plan = wire.plan_from_bytes(wire.plan_to_bytes(plan_of()))
    assert plan.update_norm.is_off
    assert plan.reputation is None
    off = plan_of(update_norm=UpdateNorm(mode=NormMode.OFF))
    assert wire.plan_to_bytes(off) == wire.plan_to_bytes(plan_of())


@pytest.mark.parametrize(
    ("guard", "named"),
    [
        ({"update_norm": {"mode": "fixed"}}, "update_norm.bound is None"),
        ({"update_norm": {"mode": "median", "bound": 1.0}}, "update_norm.bound is 1.0"),
        ({"update_norm": {"mode": "fixed", "bound": 0.0}}, "bound"),
        ({"update_norm": {"mode": "mean"}}, "mode"),
        ({"reputation": {"watch": 0.5, "quarantine": 0.4}}, "reputation.watch = 0.5"),
        ({"reputation": {"watch": 0.0}}, "watch"),
    ],
)
def test_guards_that_mean_nothing_are_refused(guard, named):
    with pytest.raises(ValueError, match=named):
        plan_of(**guard)


def test_a_format_that_is_not_known_is_refused():
    message = wire.PLAN.to_message(plan_of())
    message.wire_format = 99
    with pytest.raises(InvalidMessage, match="wire_format"):
        wire.plan_from_bytes(message.SerializeToString())
    with pytest.raises(ValueError, match="wire_format"):
        plan_of(wire_format="float16")


def test_who_joins_a_round_travels_with_the_plan():
    given = {**ROUNDS, "target": 2, "minimum_sites": 1, "wait_for_sites_s": 7, "retry_pause_s": 0}
    plan = plan_of(rounds=given)
    assert wire.plan_from_bytes(wire.plan_to_bytes(plan)) == plan


def test_a_plan_of_before_invites_everyone_and_waits_a_day_for_sites():
    message = wire.PLAN.to_message(plan_of())
    for field in ("target", "over_selection", "minimum_sites", "wait_for_sites_s"):
        message.rounds.ClearField(field)
    message.rounds.ClearField("retry_pause_s")
    rounds = wire.plan_from_bytes(message.SerializeToString()).rounds
    assert rounds == Rounds(**ROUNDS)
    assert (rounds.invited, rounds.wait_for_sites_s, rounds.retry_pause_s) == (None, 86_400, 1)


def test_pauses_double_up_to_the_time_of_a_round():
    rounds = Rounds(**ROUNDS, retry_pause_s=3.0)
    assert [rounds.retry_pause(attempt) for attempt in (1, 2, 3, 100_000)] == [3, 6, 10, 10]


def test_any_other_value_gives_another_name():
    plans = [plan_of(), plan_of(name="other"), plan_of(server=ServerOptimizer(momentum=0.1))]
    assert len({wire.plan_id(wire.plan_to_bytes(plan)) for plan in plans}) == 3


def test_a_profile_lies_over_the_defaults_for_its_gateway_alone():
    plan = plan_of(profiles={"b": Overrides(noise_multiplier=3.0)})
    assert plan.assigned("b").noise_multiplier == 3.0
    assert plan.assigned("a") == VALUES


def test_the_weight_is_the_declared_size_rounded_or_one():
    assert [plan_of().weight(name) for name in "abc"] == [1200, 56, 0]
    equal = plan_of(weighting=Weighting.EQUAL)
    assert [equal.weight(name) for name in "abc"] == [1, 1, 0]


@given(st.integers(1, 10**9))
def test_two_digits_are_within_a_twentieth(units):
    rounded = two_digits(units)
    assert abs(rounded - units) <= units / 19
    assert len(str(rounded).rstrip("0")) <= 2


def test_the_loosest_values_are_the_ends_of_the_bounds():
    bounds = Bounds(
        noise_multiplier=Range(minimum=1.5),
        sampling_rate=Range(maximum=0.6),
        local_steps=Range(maximum=4),
    )
    assert plan_of(bounds=bounds).loosest() == (1.5, 0.6, 4)


def test_without_bounds_the_loosest_values_are_those_that_are_given():
    profiles = {"a": Overrides(noise_multiplier=1.7), "b": Overrides(sampling_rate=0.7)}
    assert plan_of(profiles=profiles).loosest() == (1.7, 0.7, 2)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rounds": {"count": 3, "maximum": 2, "quorum": 1, "deadline_s": 1}}, "at least"),
        ({"rounds": {"count": 3, "maximum": 3, "quorum": 3, "deadline_s": 1}}, "only 2 take part"),
        ({"rounds": {**ROUNDS, "target": 1}}, "quorum is 2, but a round closes with rounds.target"),
        ({"rounds": {**ROUNDS, "target": 3}}, r"target \+ .*over_selection is 3, but only 2 take"),
        ({"rounds": {**ROUNDS, "target": 2, "over_selection": 1}}, "is 3, but only 2 take part"),
        ({"rounds": {**ROUNDS, "over_selection": 1}}, "there is no rounds.target"),
        ({"rounds": {**ROUNDS, "minimum_sites": 3}}, "minimum_sites is 3, but only 2 take part"),
        ({"rounds": {**ROUNDS, "target": 0}}, "target"),
        ({"rounds": {**ROUNDS, "wait_for_sites_s": 0}}, "wait_for_sites_s"),
        ({"rounds": {**ROUNDS, "retry_pause_s": -1}}, "retry_pause_s"),
        ({"participants": [{"gateway": "a", "declared_units": 1}] * 2}, "names a gateway twice"),
        ({"profiles": {"c": {}}}, "do not take part"),
        ({"bounds": {"noise_multiplier": {"minimum": 2.5}}}, "at least 2.5"),
        ({"bounds": {"noise_multiplier": {"maximum": 9.0}}}, "noise_multiplier.minimum must be"),
        ({"bounds": {"sampling_rate": {"minimum": 0.1}}}, "sampling_rate.maximum must be"),
        ({"bounds": {"local_steps": {"minimum": 1}}}, "local_steps.maximum must be"),
        ({"bounds": {"learning_rate": {"minimum": 2.0, "maximum": 1.0}}}, "no value fits"),
        ({"privacy": {"delta": 0.0, "target_epsilon": 1.0}}, "delta"),
        ({"privacy": {"delta": 1e-5, "target_epsilon": float("nan")}}, "target_epsilon"),
        ({"name": "../x"}, "name"),
        ({"unknown": 1}, "unknown"),
        ({"hyperparameters": {**VALUES.model_dump(), "sampling_rate": 1.5}}, "sampling_rate"),
        ({"hyperparameters": {**VALUES.model_dump(), "noise_multiplier": 0.0}}, "noise"),
        ({"server": {"schedule": "cosine"}}, "schedule"),
        ({"hyperparameters": adaptive(smallest=3.0, largest=2.0)}, "largest is 2.0, must be"),
        ({"hyperparameters": adaptive(smallest=2.0, largest=3.0)}, "hyperparameters.clipping_norm"),
        (  # b expects 28 units in a batch, of which a twentieth is 1.4: too little for 2.9
            {"hyperparameters": adaptive(smallest=0.1, largest=3.0) | {"noise_multiplier": 2.9}},
            "hyperparameters.noise_multiplier, for 'b'.* the count's noise above 1.45",
        ),
    ],
)
def test_an_impossible_plan_is_refused_by_name(changes, problem):
    with pytest.raises(ValueError, match=problem):
        plan_of(**changes)
