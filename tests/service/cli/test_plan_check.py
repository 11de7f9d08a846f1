"""A plan's cost and its noise, found before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner

from cli.main import app
from cli.plan_check import check_plan, noise_to_signal
from common.accounting import PrivacyEvent, epsilon, epsilon_pld, epsilon_replace_one
from common.config import SettingsInvalid
from tasks.plan_file import complete, draft_plan
from tests.tiny_task import TASK

DELTA = 1e-5
TASK_FILE = Path(__file__).parents[2] / "tiny_task.py"


def tables(*, noise: float = 20.0, steps: int = 1, **changes) -> dict[str, object]:
    """Two gateways of different size; without sampling, which is quick to account."""
    fields = {
        "name": "small",
        "rounds": {"count": 4, "quorum": 1, "deadline_s": 10.0},
        "privacy": {"delta": DELTA, "target_epsilon": 0.5},
        "hyperparameters": {
            "learning_rate": 1.0,
            "clipping_norm": 0.3,
            "noise_multiplier": noise,
            "sampling_rate": 1.0,
            "local_steps": steps,
        },
        "participants": [
            {"gateway": "a", "declared_units": 60},
            {"gateway": "b", "declared_units": 30},
        ],
    }
    return {**fields, **changes}


def plan(**changes):
    return complete(tables(**changes), TASK, ("no", "yes"))[0]


def test_each_gateway_is_told_what_it_spends_under_both_relations():
    profiles = {"b": {"noise_multiplier": 40.0}}
    found = check_plan(plan(profiles=profiles))
    a, b = found.gateways
    assert (a.noise_multiplier, b.noise_multiplier) == (20.0, 40.0)
    events = [PrivacyEvent(40.0, 1.0, 4)]
    spent = epsilon(events, DELTA)
    assert (b.epsilon, b.epsilon_rdp) == (spent.pld, spent.rdp)
    assert b.epsilon_replace_one == epsilon_replace_one(events, DELTA) > b.epsilon
    assert b.epsilon_after_round.keys() == {1, 2, 3, 4}
    assert b.epsilon_after_round[4] == b.epsilon
    one = epsilon_pld([PrivacyEvent(40.0, 1.0, 1)], DELTA)
    assert one <= b.epsilon_after_round[1] <= one * 1.01


def test_of_many_rounds_ten_are_shown():
    rounds = {"count": 1000, "quorum": 1, "deadline_s": 10.0}
    found = check_plan(plan(noise=2000.0, rounds=rounds))
    assert list(found.gateways[0].epsilon_after_round) == list(range(100, 1001, 100))


def test_each_change_reaches_the_target_alone_and_no_less_would_do():
    found = check_plan(plan(noise=10.0))
    assert not found.is_within_target
    change = found.to_reach_target
    for event, less in (
        (PrivacyEvent(change.noise_multiplier, 1.0, 4), PrivacyEvent(13.5, 1.0, 4)),
        (PrivacyEvent(10.0, change.sampling_rate, 4), PrivacyEvent(10.0, 0.9, 4)),
        (PrivacyEvent(10.0, 1.0, change.rounds), PrivacyEvent(10.0, 1.0, change.rounds + 1)),
    ):
        assert epsilon_pld([event], DELTA) <= 0.5 < epsilon_pld([less], DELTA)


def test_another_target_can_be_asked_for():
    found = check_plan(plan(), target_epsilon=0.2)
    assert (found.target_epsilon, found.is_within_target) == (0.2, False)
    assert check_plan(plan(), target_epsilon=0.5).is_within_target


def test_bounds_count_not_the_values_given():
    loose = {"noise_multiplier": {"minimum": 10.0}}
    found = check_plan(plan(bounds=loose))
    assert found.gateways[0].epsilon < 0.5 < found.epsilon_at_bounds


def test_noise_to_signal_is_what_a_simulated_round_shows():
    steps, draws = 3, 4000
    offered = plan(noise=20.0, steps=steps, profiles={"b": {"clipping_norm": 0.9}})
    size = offered.task.layout.size
    generator = np.random.default_rng(0)
    update, largest = np.zeros((draws, size)), 0.0
    for units, share, clip in ((60, 60 / 90, 0.3), (30, 30 / 90, 0.9)):
        noise = generator.normal(scale=20.0 * clip, size=(draws, steps, size))
        update += share * noise.sum(axis=1) / units
        largest += share * steps * clip  # every gradient clipped and of one direction
    found = np.sqrt((update**2).sum(axis=1).mean()) / largest
    assert noise_to_signal(offered) == pytest.approx(found, rel=0.02)


def test_a_target_makes_the_average_noisier_and_costs_no_epsilon():
    rounds = {**tables()["rounds"], "target": 1, "over_selection": 1}
    over_selected = plan(rounds=rounds)
    raised = noise_to_signal(over_selected) / noise_to_signal(plan())
    assert raised == pytest.approx(2**0.5)  # one of two
    assert check_plan(over_selected).gateways == check_plan(plan()).gateways


def test_a_target_that_cannot_be_is_refused_by_a_sentence_that_names_it(tmp_path):
    file = tmp_path / "plan.toml"
    task = {"reference": f"{TASK_FILE}:TASK", "labels": ["no", "yes"]}
    rounds = {**tables()["rounds"], "target": 2, "over_selection": 1}
    file.write_text(tomli_w.dumps({**tables(rounds=rounds), "task": task}))
    with pytest.raises(SettingsInvalid, match=r"target \+ rounds.over_selection is 3, but only 2"):
        draft_plan(file)


def test_a_count_that_is_paid_for_adds_noise_to_the_signal_and_costs_no_epsilon():
    how = tables()["hyperparameters"]
    adaptive = {"smallest": 0.1, "largest": 1.0, "count_noise": 12.5}
    counted = plan(hyperparameters={**how, "adaptive_clipping": adaptive})
    raised = noise_to_signal(counted) / noise_to_signal(plan())
    assert raised == pytest.approx(1 / 0.6)  # 20 of 25 go to the count: a triangle of 3, 4 and 5
    assert check_plan(counted).gateways == check_plan(plan()).gateways


@pytest.mark.parametrize(
    ("adaptive", "named"),
    [
        ({"smallest": 0.1, "largest": 1.0}, "hyperparameters.noise_multiplier, for 'a'"),
        ({"smallest": 2.0, "largest": 1.0}, "hyperparameters.adaptive_clipping: .*largest is 1.0"),
        ({"smallest": 0.5, "largest": 1.0}, "hyperparameters.clipping_norm, for 'a'"),
        ({"largest": 1.0}, "hyperparameters.adaptive_clipping.smallest"),
    ],
)
def test_adaptive_clipping_that_cannot_be_is_refused_before_a_run_by_name(
    tmp_path, adaptive, named
):
    file = tmp_path / "plan.toml"
    task = {"reference": f"{TASK_FILE}:TASK", "labels": ["no", "yes"]}
    how = {**tables()["hyperparameters"], "adaptive_clipping": adaptive}
    file.write_text(tomli_w.dumps({**tables(hyperparameters=how), "task": task}))
    refused = CliRunner().invoke(app, ["plan", "check", str(file)])
    assert refused.exit_code != 0
    with pytest.raises(SettingsInvalid, match=named):
        draft_plan(file)


def test_a_wire_format_makes_updates_shorter_and_costs_no_epsilon(tmp_path):
    file = tmp_path / "plan.toml"
    task = {"reference": f"{TASK_FILE}:TASK", "labels": ["no", "yes"]}
    file.write_text(tomli_w.dumps({**tables(wire_format="bfloat16"), "task": task}))
    given, _ = draft_plan(file)
    found = check_plan(given)
    assert (found.wire_format, found.update_bytes) == ("bfloat16", given.update_form.byte_length)
    assert check_plan(plan()).update_bytes - found.update_bytes > given.task.layout.size
    assert found.gateways == check_plan(plan()).gateways
    shown = CliRunner().invoke(app, ["plan", "check", str(file)])
    assert f"one update: {found.update_bytes:,} bytes in bfloat16" in shown.output


def test_a_small_site_beside_large_ones_is_named_before_its_noise_is_scaled_down(tmp_path):
    members = [{"gateway": g, "declared_units": n} for g, n in zip("abc", (60, 50, 9), strict=True)]
    assert check_plan(plan(participants=members)).expected_clipped == ("c",)
    assert check_plan(plan()).expected_clipped == ()
    file = tmp_path / "plan.toml"
    task = {"reference": f"{TASK_FILE}:TASK", "labels": ["no", "yes"]}
    file.write_text(tomli_w.dumps({**tables(participants=members), "task": task}))
    shown = " ".join(CliRunner().invoke(app, ["plan", "check", str(file)]).output.split())
    assert "scaled down to an L2 norm of 3 times the median of rounds before" in shown
    assert "expected above it for their noise alone: c" in shown


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"mode": "off"}, "one bad gateway can undo the model"),
        ({"mode": "fixed", "bound": 2.5}, "an L2 norm of 2.5, which"),
    ],
)
def test_a_plan_says_how_far_its_average_is_guarded(tmp_path, guard, words):
    file = tmp_path / "plan.toml"
    task = {"reference": f"{TASK_FILE}:TASK", "labels": ["no", "yes"]}
    file.write_text(tomli_w.dumps({**tables(update_norm=guard), "task": task}))
    shown = " ".join(CliRunner().invoke(app, ["plan", "check", str(file)]).output.split())
    assert words in shown


@pytest.mark.parametrize(("noise", "code", "word"), [(20.0, 0, "within"), (10.0, 1, "ABOVE")])
def test_the_command_says_it_and_its_exit_code_too(tmp_path, noise, code, word):
    file = tmp_path / "plan.toml"
    task = {"reference": f"{TASK_FILE}:TASK", "labels": ["no", "yes"]}
    file.write_text(tomli_w.dumps({**tables(noise=noise), "task": task}))
    shown = CliRunner().invoke(app, ["plan", "check", str(file)])
    assert shown.exit_code == code
    assert f"{word} the target of 0.5" in shown.output
    found = CliRunner().invoke(app, ["plan", "check", str(file), "--format", "json"])
    assert json.loads(found.stdout) == json.loads(check_plan(plan(noise=noise)).model_dump_json())
