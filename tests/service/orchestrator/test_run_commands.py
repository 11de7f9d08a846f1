"""`fedgate run watch` and `compare`, against a real orchestrator."""

from __future__ import annotations

import asyncio
import json

import pytest
import tomli_w
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from common.ids import RunId
from common.tls import Role
from tests.fakes import plan_of


@pytest.fixture
async def serving(federation, tmp_path):
    """A federation that serves, and an operator's settings."""
    with capture_logs():
        async with federation.serving():
            files = federation.authority.issue(Role.OPERATOR, "olga")
            tls = {name: str(path) for name, path in files}
            config = tmp_path / "operator.toml"
            config.write_text(tomli_w.dumps({"address": federation.address, "tls": tls}))
            yield federation, str(config)


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
