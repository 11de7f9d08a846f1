"""`docker compose kill orchestrator` in mid-round, and `up` again: the same model."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from tests.system.engine import BASE, GATEWAYS, NEEDS_ENGINE, ROOT, Stack

ROUNDS = 40  # enough that a kill finds it going on
POSTGRESQL = ROOT / "deploy" / "postgresql.yml"

pytestmark = NEEDS_ENGINE


def seeded(folder: Path) -> Path:
    """Lay over the federation: a shorter plan, and noise from a seed, so that models compare."""
    plan = (ROOT / "examples" / "letters" / "plan.toml").read_text()
    (folder / "plan.toml").write_text(plan.replace("count = 60", f"count = {ROUNDS}"))
    run = ["fedgate-gateway", "run", "--config", "/etc/fedgate/gateway.toml"]
    services: dict[str, object] = {
        name: {"command": [*run, "--insecure-deterministic", "7"]} for name in GATEWAYS
    }
    services["start"] = {"volumes": [f"{folder / 'plan.toml'}:/etc/fedgate/plan.toml:ro"]}
    (folder / "seeded.json").write_text(json.dumps({"services": services}))
    return folder / "seeded.json"


def password_in(folder: Path) -> str:
    file = folder / "password"
    file.write_text(f"{secrets.token_hex(24)}\n")
    file.chmod(0o444)
    return str(file)


def begun(stack: Stack) -> None:
    stack.up("orchestrator", *GATEWAYS)
    stack.start_run()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    """The model of a run in which nothing is killed."""
    stack = Stack("fedgate-calm-test", BASE, seeded(tmp_path_factory.mktemp("calm")))
    try:
        begun(stack)
        return stack.finished()["model_sha256"]
    finally:
        stack.down()


@pytest.fixture(params=["sqlite", "postgresql"])
def stack(request, tmp_path):
    over = [POSTGRESQL] if request.param == "postgresql" else []
    secret = {"DATABASE_PASSWORD_FILE": password_in(tmp_path)} if over else {}
    stack = Stack(f"fedgate-kill-{request.param}", BASE, *over, seeded(tmp_path), **secret)
    yield stack
    stack.down()
    assert stack.left_behind() == []


def test_an_orchestrator_killed_in_mid_round_comes_to_the_same_model(stack, undisturbed):
    begun(stack)
    stack.until(lambda: stack.the_run()["published_round"] >= 2, "two rounds are published")
    before = stack.the_run()
    assert before["published_round"] < ROUNDS
    stack.compose("kill", "orchestrator")
    stack.up("orchestrator", *GATEWAYS)
    run = stack.finished()
    assert (run["state"], run["insecure_deterministic"]) == ("completed", True)
    assert run["opened_rounds"] == run["published_round"] == ROUNDS
    assert {g["rounds_invited"] for g in run["gateways"]} == {ROUNDS}
    assert {g["rounds_counted"] for g in run["gateways"]} == {ROUNDS}
    assert run["model_sha256"] == undisturbed


def test_the_databases_password_is_in_no_variable_and_no_log(tmp_path):
    stack = Stack(
        "fedgate-password-test", BASE, POSTGRESQL, DATABASE_PASSWORD_FILE=password_in(tmp_path)
    )
    password = (tmp_path / "password").read_text().strip()
    try:
        stack.up("orchestrator")
        assert password not in json.dumps(stack.inspected())
        assert password not in stack.compose("logs")
        assert stack.inside("orchestrator", "cat", "/run/secrets/database-password").strip() == (
            password
        )
        host = stack.inspected()["database"]["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
        assert host["Memory"] > 0
    finally:
        stack.down()
    assert stack.left_behind() == []
