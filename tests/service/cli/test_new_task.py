"""`fedgate new task`: a task that runs as it is written, and its tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.new_commands import NotATaskName
from cli.skeleton.test_task import *  # noqa: F403 - the skeleton's own tests, on the skeleton itself
from common.key_files import AlreadyThere
from tasks.loading import load_task

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the command runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(name: str, *more: str):
    return CliRunner().invoke(app, ["new", "task", name, *more])


def test_it_writes_a_task_of_that_name_and_its_tests(folder):
    assert new("loan_risk").exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["loan_risk.py", "test_loan_risk.py"]
    task = load_task("loan_risk.py:TASK")
    assert (task.name, type(task).__name__) == ("loan_risk", "LoanRiskTask")
    for path in folder.glob("*.py"):
        assert "skeleton" not in path.read_text().casefold()


@pytest.mark.timeout(120)
def test_the_tests_that_it_writes_pass_as_written(folder):
    new("loan_risk")
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_loan_risk.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert " passed" in found.stdout
    assert "skipped" not in found.stdout


def test_what_it_writes_is_lint_clean(folder):
    new("loan_risk")
    ruff = [sys.executable, "-m", "ruff"]
    left_to_tests = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "ARG002,S101,TID251"]
    for command in (["check", *left_to_tests], ["format", "--check", "--line-length", "100"]):
        found = subprocess.run([*ruff, *command, "."], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("there", ["loan_risk.py", "test_loan_risk.py"])
def test_it_overwrites_nothing_and_writes_none_of_the_two(folder, there):
    (folder / there).write_text("mine")
    found = new("loan_risk")
    assert isinstance(found.exception, AlreadyThere)
    assert there in str(found.exception)
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Loans", "no name of a Python file"),
        ("loan-risk", "no name of a Python file"),
        ("../loans", "no name of a Python file"),
        ("", "no name of a Python file"),
        ("class", "a word of Python itself"),
        ("csv", "a module of that name is installed"),
        ("torch", "a module of that name is installed"),
        ("tasks", "a module of that name is installed"),
    ],
)
def test_a_name_that_no_task_can_have_is_refused(folder, name, why):
    found = new(name)
    assert isinstance(found.exception, NotATaskName)
    assert why in str(found.exception)
    assert not list(folder.iterdir())


def test_another_folder_may_be_named(folder):
    assert new("loans", "--out", "tasks_of_mine").exit_code == 0
    assert (folder / "tasks_of_mine" / "test_loans.py").is_file()
