"""The federation in containers: `docker compose up`, a run to its end, `docker compose down`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = "fedgate-system-test"
LONG_RUNNING = {"orchestrator", "gateway-1", "gateway-2", "gateway-3"}
ONE_SHOT = {"pki", "start"}
MB = 10**6


def docker(*arguments, timeout=60):
    """Return what a docker command prints; a failing one fails the test with its output."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Federation:
    """What `docker compose up` has started."""

    def compose(self, *arguments, timeout=60):
        return docker("compose", "--project-name", PROJECT, *arguments, timeout=timeout)

    def inside(self, service, *command, timeout=60):
        """Return what a command prints in a service's container."""
        return self.compose("exec", "--no-TTY", service, *command, timeout=timeout)

    def the_run(self):
        """Return the one run, as the operator's command has it."""
        listed = self.inside("orchestrator", "fedgate", "run", "list", "--format", "json")
        (run,) = json.loads(listed)["runs"]
        return run

    def services(self):
        """Return each service's state by its name."""
        listed = self.compose("ps", "--all", "--format", "json").splitlines()
        return {each["Service"]: each for each in map(json.loads, listed)}


def has_engine():
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def left_behind():
    """Return every container, volume and network of the project."""
    mine = f"label=com.docker.compose.project={PROJECT}"
    kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    return [line for kind in kinds for line in docker(*kind, "-q", "--filter", mine).split()]


pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not has_engine(), reason="no Docker engine answers"),
]


@pytest.fixture(scope="module")
def federation():
    """Every service started and healthy; nothing is left afterwards."""
    federation = Federation()
    federation.compose("up", "--detach", "--wait", timeout=1500)
    yield federation
    federation.compose("down", "--volumes", timeout=120)


@pytest.fixture(scope="module")
def finished(federation):
    """The same, once the run that compose starts has ended."""
    federation.inside("orchestrator", "fedgate", "run", "watch", "compose", timeout=900)
    return federation


def test_long_running_services_are_healthy(federation):
    found = federation.services()
    assert {found[name]["Health"] for name in LONG_RUNNING} == {"healthy"}


def test_one_shot_services_have_done_their_work(federation):
    found = federation.services()
    assert {found[name]["ExitCode"] for name in ONE_SHOT} == {0}


@pytest.mark.parametrize("service", sorted(LONG_RUNNING))
def test_nothing_runs_as_root(federation, service):
    assert federation.inside(service, "id", "-u").strip() != "0"


def test_a_gateway_sees_its_own_key_alone(federation):
    found = federation.inside("gateway-1", "find", "/keys", "-name", "*key*", "-type", "f")
    assert found.split() == ["/keys/gateway/key.pem"]


@pytest.mark.usefixtures("federation")
@pytest.mark.parametrize(("target", "limit"), [("orchestrator", 400 * MB), ("gateway", 1500 * MB)])
def test_images_are_small(target, limit):
    size = docker("image", "inspect", "--format", "{{.Size}}", f"fedgate-{target}")
    assert int(size) < limit


def test_the_orchestrator_has_no_torch(federation):
    code = "import importlib.util; print(importlib.util.find_spec('torch'))"
    assert federation.inside("orchestrator", "python", "-c", code).strip() == "None"


def test_the_run_publishes_a_model(finished):
    run = finished.the_run()
    assert run["state"] == "completed"
    assert run["model"]


def test_the_evaluator_scores_the_test_split(finished):
    docker("wait", f"{PROJECT}-evaluator-1", timeout=300)
    splits = [each["split"] for each in finished.the_run()["scores"]]
    assert splits.count("test") == 1


def test_services_stay_up_after_the_run(finished):
    found = finished.services()
    assert {found[name]["State"] for name in LONG_RUNNING} == {"running"}


def test_a_restart_loses_nothing(finished):
    before = finished.the_run()
    finished.compose("restart", *sorted(LONG_RUNNING), timeout=120)
    finished.compose("up", "--detach", "--wait", *sorted(LONG_RUNNING), timeout=300)
    after = finished.the_run()
    assert (after["run_id"], after["model"]) == (before["run_id"], before["model"])


def test_down_leaves_nothing(finished):
    finished.compose("down", "--volumes", timeout=120)
    assert left_behind() == []
