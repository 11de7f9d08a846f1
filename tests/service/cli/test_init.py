"""`fedgate init` and `fedgate-gateway init`: what they write passes the checks."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app as fedgate
from cli.plan_draft import NotASite
from common.console import AnswerMissing
from common.key_files import AlreadyThere
from common.tls import Role
from gateway.cli import app as fedgate_gateway
from gateway.init_command import BudgetUnclear, DataUnclear
from tests.certificates import Authority
from tests.signing import trust_file

ROOT = Path(__file__).parents[3]
TINY = f"{ROOT / 'tests' / 'tiny_task.py'}:TASK"
PLAN = [
    *("init", "--name", "small", "--label", "no", "--label", "yes", "--reference", TINY),
    *("--gateway", "a:60", "--gateway", "b:30", "--rounds", "4", "--target-epsilon", "3"),
    *("--sampling-rate", "1"),  # quick to account
]
SITE = [
    *("init", "--address", "localhost:1", "--label", "no", "--label", "yes", "--reference", TINY),
    *("--corpus", "points", "--site", "a", "--epsilon-budget", "3.5"),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Where the commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_that_is_made_passes_its_check():
    made = CliRunner().invoke(fedgate, PLAN)
    assert made.exit_code == 0, made.exception
    fields = tomllib.loads(Path("plan.toml").read_text())
    assert fields["participants"] == [
        {"gateway": "a", "declared_units": 60},
        {"gateway": "b", "declared_units": 30},
    ]
    checked = CliRunner().invoke(fedgate, ["plan", "check", "plan.toml", "--format", "json"])
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)
    assert (found["rounds"], found["target_epsilon"], found["is_within_target"]) == (4, 3.0, True)


def test_settings_that_are_made_pass_their_check_with_the_plan_that_was_made(folder):
    keys = Authority.make(folder / "authority").issue(Role.GATEWAY, "a").key.parent
    keys.rename(folder / "keys")
    trust_file(folder)
    made = CliRunner().invoke(fedgate_gateway, SITE)
    assert made.exit_code == 0, made.exception
    assert CliRunner().invoke(fedgate, PLAN).exit_code == 0
    words = ["check", "--offline", "--no-rehearsal", "--plan", "plan.toml", "--format", "json"]
    checked = CliRunner().invoke(fedgate_gateway, words)
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)["findings"]
    assert {each["level"] for each in found} == {"ok"}


def test_what_is_made_is_commented():
    CliRunner().invoke(fedgate, PLAN)
    CliRunner().invoke(fedgate_gateway, SITE)
    for file in ("plan.toml", "gateway.toml"):
        lines = Path(file).read_text().splitlines()
        assert lines[0].startswith("# ")
        assert sum("#" in line for line in lines) > 10


@pytest.mark.parametrize(("app", "words"), [(fedgate, PLAN), (fedgate_gateway, SITE)])
def test_a_file_that_is_there_is_left_as_it_is(app, words):
    assert CliRunner().invoke(app, words).exit_code == 0
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, AlreadyThere)


@pytest.mark.parametrize(
    ("app", "words", "kind", "said"),
    [
        (fedgate, ["init"], AnswerMissing, "--label is missing"),
        (fedgate, ["init", "--label", "A", "--gateway", "a"], NotASite, "NAME:UNITS"),
        (fedgate, ["init", "--label", "A", "--gateway", "A!:3"], NotASite, "NAME:UNITS"),
        (fedgate_gateway, ["init"], AnswerMissing, "--address is missing"),
        (fedgate_gateway, [*SITE, "--path", "x.jsonl"], DataUnclear, "in one way"),
        (fedgate_gateway, [*SITE, "--epsilon-budget", "much"], BudgetUnclear, "'much'"),
        (fedgate_gateway, [*SITE, "--epsilon-budget", "-1"], BudgetUnclear, "above 0"),
    ],
)
def test_what_is_missing_or_makes_no_sense_is_said_and_nothing_is_written(app, words, kind, said):
    refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, kind)
    assert said in str(refused.exception)
    assert list(Path().glob("*.toml")) == []


def test_on_a_terminal_what_is_missing_is_asked_for(folder):
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "gateway", "init", "--corpus", "letters", "--site", "x"]
    asked = subprocess.Popen(
        words,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.write(ours, b"fl.example:8443\nDrug, Disease\n\n")
    _, questions = asked.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert asked.returncode == 0, questions
    assert b"Where is the orchestrator (HOST:PORT)" in questions
    made = tomllib.loads((folder / "gateway.toml").read_text())
    assert made["address"] == "fl.example:8443"
    assert made["task"]["labels"] == ["Drug", "Disease"]
    assert made["policy"]["epsilon_budget"] == 8.0
