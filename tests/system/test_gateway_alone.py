"""A gateway alone, from `deploy/gateway.yml`: another project, another network, one folder."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.system.engine import BASE, NEEDS_ENGINE, ROOT, Stack
from tests.system.test_kill import ROUNDS, seeded

PORT, ENROLMENT_PORT = "18443", "18444"
PROJECT = "fedgate-central-test"

pytestmark = NEEDS_ENGINE


@pytest.fixture
def central(tmp_path):
    """A federation that waits for its third gateway; its orchestrator can be reached by a port."""
    over = (ROOT / "deploy" / "reachable.yml", seeded(tmp_path))
    ports = {"PORT": PORT, "ENROLMENT_PORT": ENROLMENT_PORT}
    central = Stack(PROJECT, BASE, *over, **ports)
    central.up("orchestrator", "gateway-1", "gateway-2")
    central.start_run()
    yield central
    central.down()
    assert central.left_behind() == []


def with_token(central: Stack) -> dict[str, str]:
    """Return the token that an admin makes for the site."""
    admin = "FEDGATE_OPERATOR_CONFIG=/etc/fedgate/admin.toml"
    create = ("fedgate", "enroll", "create", "gateway-3", "--format", "json")
    return {"TOKEN": json.loads(central.inside("orchestrator", "env", admin, *create))["token"]}


def with_keys(folder: Path) -> dict[str, str]:
    """Return the folder of keys that somebody has brought to the site."""
    volume = f"{PROJECT}_gateway-3-keys:/keys:ro"
    copy = ["docker", "run", "--rm", "-v", volume, "fedgate-gateway", "tar", "-C", "/keys", "-c"]
    taken = subprocess.run([*copy, "."], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(taken)) as keys:
        keys.extractall(folder / "keys", filter="data")
    for path in (folder / "keys", *(folder / "keys").iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return {"KEYS": str(folder / "keys")}


@pytest.fixture(params=["token", "keys"])
def site(request, central, tmp_path):
    """What a site has: the file, its settings, and a token or a folder of keys."""
    by_token = request.param == "token"
    given = with_token(central) if by_token else with_keys(tmp_path)
    settings = (ROOT / "deploy" / "compose" / "gateway.toml").read_text()
    settings = settings.replace("orchestrator:8443", f"orchestrator:{PORT}")
    settings = settings.replace('"letters"', '"letters"\nsite = "lakeland-clinic"')
    settings = settings.replace("/keys/gateway/plan-signers", "/etc/fedgate/plan-keys")
    plan_keys = tmp_path / "plan-keys"
    plan_keys.write_text(central.inside("gateway-1", "cat", "/keys/gateway/plan-signers"))
    (tmp_path / "gateway.toml").write_text(settings)
    run = ["fedgate-gateway", "run", "--config", "/etc/fedgate/gateway.toml"]
    reach = {
        "extra_hosts": ["orchestrator:host-gateway"],
        "command": [*run, "--insecure-deterministic", "7"],
    }
    (tmp_path / "reach.json").write_text(
        json.dumps({"services": {"gateway": reach, "enrol": {"extra_hosts": reach["extra_hosts"]}}})
    )
    files = (ROOT / "deploy" / "gateway.yml", tmp_path / "reach.json")
    beside = {"CONFIG": str(tmp_path / "gateway.toml"), "PLAN_KEYS": str(plan_keys)}
    site = Stack("fedgate-alone-test", *files, **beside, **given)
    yield site
    site.down()
    assert site.left_behind() == []


def test_a_gateway_alone_joins_from_another_network_and_keeps_its_keys(central, site):
    site.up()
    assert site.services()["gateway"]["Health"] == "healthy"
    assert not site.inspected()["gateway"]["HostConfig"]["PortBindings"]
    run = central.finished()
    assert run["state"] == "completed"
    assert {g["gateway"]: g["rounds_counted"] for g in run["gateways"]}["gateway-3"] == ROUNDS
    for once in ("KEYS", "TOKEN"):  # not needed again
        site.environment.pop(once, None)
    site.compose("down")
    site.up()
    assert site.services()["gateway"]["Health"] == "healthy"


def test_a_gateway_without_keys_is_told_what_it_needs(tmp_path):
    for name in ("gateway.toml", "plan-keys"):
        (tmp_path / name).write_text("")
    given = {"CONFIG": str(tmp_path / "gateway.toml"), "PLAN_KEYS": str(tmp_path / "plan-keys")}
    site = Stack("fedgate-keyless-test", ROOT / "deploy" / "gateway.yml", **given)
    try:
        with pytest.raises(AssertionError, match="didn't complete successfully"):
            site.up()
        assert "this gateway has no keys yet: set TOKEN" in site.compose("logs", "enrol")
    finally:
        site.down()
