"""A plan's file: completed with the task, its noise found, its target held."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from common.accounting import PrivacyEvent, epsilon_pld
from common.bad_updates import NormMode, Reputation, UpdateNorm
from tasks.plan_file import EpsilonAboveTarget, check_target, complete
from tests.tiny_task import TASK

LABELS = ("no", "yes")


def fields(**changes) -> dict[str, object]:
    """The tables of a small plan."""
    hyperparameters = {
        "learning_rate": 1.0,
        "clipping_norm": 1.0,
        "sampling_rate": 1.0,  # quick to account
        "local_steps": 1,
    }
    tables = {
        "name": "small",
        "rounds": {"count": 4, "quorum": 1, "deadline_s": 10.0},
        "privacy": {"delta": 1e-5, "target_epsilon": 0.5},
        "hyperparameters": hyperparameters,
        "participants": [{"gateway": "a", "declared_units": 60}],
    }
    return {**tables, **changes}


def test_the_task_fills_in_layout_digest_and_initial_weights():
    plan, initial = complete(fields(), TASK, LABELS)
    assert plan.task.digest == TASK.digest()
    assert plan.task.layout == initial.layout
    assert plan.initial_weights == initial.digest
    assert plan.rounds.maximum == 8


def test_noise_that_is_not_given_is_the_least_that_meets_the_target():
    plan, _ = complete(fields(), TASK, LABELS)
    noise = plan.hyperparameters.noise_multiplier
    assert epsilon_pld([PrivacyEvent(noise, 1.0, 4)], 1e-5) <= 0.5
    assert epsilon_pld([PrivacyEvent(noise - 2e-4, 1.0, 4)], 1e-5) > 0.5


def test_a_plan_that_could_pass_its_target_at_its_bounds_is_refused():
    given = {**fields()["hyperparameters"], "noise_multiplier": 40.0}
    bounds = {"noise_multiplier": {"minimum": 8.0}}
    plan, _ = complete(fields(hyperparameters=given, bounds=bounds), TASK, LABELS)
    with pytest.raises(EpsilonAboveTarget, match=r"noise multiplier 8\.0.*raise the noise's floor"):
        check_target(plan)


def test_what_else_is_wrong_is_said_before_noise_is_looked_for():
    out_of_reach = {"delta": 1e-300, "target_epsilon": 1e-12}  # what the search would say
    rounds = {"count": 4, "quorum": 0, "deadline_s": 10.0}
    with pytest.raises(ValidationError, match="greater than 0") as caught:
        complete(fields(rounds=rounds, privacy=out_of_reach), TASK, LABELS)
    assert [error["loc"] for error in caught.value.errors()] == [("rounds", "quorum")]


@pytest.mark.parametrize("missing", ["rounds", "privacy", "hyperparameters", "participants"])
def test_a_missing_table_is_named(missing):
    tables = fields()
    del tables[missing]
    with pytest.raises(ValueError, match=missing):
        complete(tables, TASK, LABELS)


def test_a_plan_that_is_written_now_guards_its_average():
    plan, _ = complete(fields(), TASK, LABELS)
    assert plan.update_norm == UpdateNorm(mode=NormMode.MEDIAN)
    assert plan.reputation == Reputation()


def test_a_file_may_choose_another_guard_or_none():
    tables = fields(update_norm={"mode": "off"}, reputation={"watch": 0.1, "quarantine": 2.0})
    plan, _ = complete(tables, TASK, LABELS)
    assert plan.update_norm.is_off
    assert plan.reputation == Reputation(watch=0.1, quarantine=2.0)
