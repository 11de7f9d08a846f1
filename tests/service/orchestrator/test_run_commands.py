"""`fedgate run watch` and `compare`, against a real orchestrator."""

from __future__ import annotations

import asyncio
import io
import json

from rich.console import Console
from typer.testing import CliRunner

from cli import run_commands
from cli.main import app
from common.ids import RunId
from tests.fakes import plan_of


async def told(*words: str) -> str:
    done = await asyncio.to_thread(CliRunner().invoke, app, ["run", *words])
    assert done.exit_code == 0, done.exception
    return done.stdout


async def test_each_state_is_a_line_of_json_until_the_end(serving):
    federation, config = serving
    operator = await federation.start(plan_of("a"))
    (a,) = await federation.gateways("a")
    watching = asyncio.create_task(told("watch", "r", "--config", config, "--format", "json"))
    await a.follow("r")
    states = [json.loads(line)["state"] for line in (await watching).splitlines()]
    assert states[-1] == "completed"
    assert states.count("completed") == 1
    assert (await operator.run(RunId("r")))[0].has_ended


async def watched(serving, console: Console) -> str:
    """Return what is shown of a run from its beginning to its end."""
    federation, config = serving
    await federation.start(plan_of("a"))
    (a,) = await federation.gateways("a")
    watching = asyncio.create_task(told("watch", "r", "--config", config))
    await a.follow("r")
    await watching
    return console.file.getvalue()


async def test_elsewhere_than_on_a_terminal_each_change_is_a_plain_line(serving, monkeypatch):
    console = Console(file=io.StringIO(), soft_wrap=True)
    monkeypatch.setattr(run_commands, "ERRORS", console)
    lines = (await watched(serving, console)).splitlines()
    assert lines == list(dict.fromkeys(lines))
    assert lines[-1].startswith("r completed, 3 of 3 rounds published")
    assert "\x1b" not in "".join(lines)


async def test_on_a_terminal_one_line_changes_and_is_gone_at_the_end(serving, monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    monkeypatch.setattr(run_commands, "ERRORS", console)
    shown = await watched(serving, console)
    assert "r completed, 3 of 3 rounds published" in shown
    assert shown.endswith("\x1b[2K")


async def test_two_runs_are_shown_side_by_side(serving):
    federation, config = serving
    await federation.start(plan_of("a"), "first")
    await federation.start(plan_of("a", "b"), "second")
    words = ("compare", "first", "second", "--config", config)
    shown = await told(*words)
    assert "F1, dev" in shown
    assert "declared_units.b" in shown
    found = json.loads(await told(*words, "--format", "json"))
    assert [run["run"] for run in found["runs"]] == ["first", "second"]
    assert found["differ"] == ["rounds.quorum", "declared_units.b"]
    same = await told("compare", "first", "first", "--config", config)
    assert "their plans say the same" in same
    assert "all settings" in await told(*words, "--all")
