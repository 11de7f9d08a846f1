"""The federation in containers: `docker compose up`, a run to its end, `docker compose down`."""

from __future__ import annotations

import json

import pytest

from tests.system.engine import BASE, GATEWAYS, NEEDS_ENGINE, ROOT, Stack, docker

PROJECT = "fedgate-system-test"
LONG_RUNNING = {"orchestrator", *GATEWAYS}
ONE_SHOT = {"pki", "start"}
ALL = sorted(LONG_RUNNING | ONE_SHOT | {"evaluator"})
MB = 10**6
HELD = """
import importlib.metadata, json, re
held = [(re.sub("[-_.]+", "-", each.metadata["Name"]).lower(), each.version.partition("+")[0])
        for each in importlib.metadata.distributions()]
print(json.dumps(held))
"""

pytestmark = NEEDS_ENGINE


@pytest.fixture(scope="module")
def federation():
    """Every service built, started and healthy; nothing is left afterwards."""
    federation = Stack(PROJECT, BASE)
    federation.compose("up", "--build", "--detach", "--wait", timeout=3000)
    yield federation
    federation.down()


@pytest.fixture(scope="module")
def finished(federation):
    """The same, once the run that compose starts has ended."""
    federation.finished()
    return federation


def test_long_running_services_are_healthy(federation):
    found = federation.services()
    assert {found[name]["Health"] for name in LONG_RUNNING} == {"healthy"}


def test_one_shot_services_have_done_their_work(federation):
    found = federation.services()
    assert {found[name]["ExitCode"] for name in ONE_SHOT} == {0}


@pytest.mark.parametrize("service", ALL)
def test_a_container_may_do_nothing_that_it_need_not(federation, service):
    found = federation.inspected()[service]
    host = found["HostConfig"]
    assert found["Config"]["User"] == "fedgate"
    assert host["ReadonlyRootfs"]
    assert (host["Privileged"], host["CapAdd"], host["CapDrop"]) == (False, None, ["ALL"])
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert not host["PortBindings"]


@pytest.mark.parametrize("service", ALL)
def test_a_container_cannot_take_the_whole_machine(federation, service):
    host = federation.inspected()[service]["HostConfig"]
    assert 0 < host["Memory"] <= 2 << 30
    assert 0 < host["NanoCpus"] <= 10**9
    assert 0 < host["PidsLimit"] <= 256
    assert host["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}


@pytest.mark.parametrize("service", ALL)
def test_what_ends_without_being_told_to_is_started_again_if_it_should_run(federation, service):
    policy = federation.inspected()[service]["HostConfig"]["RestartPolicy"]["Name"]
    wanted = dict.fromkeys(LONG_RUNNING, "unless-stopped") | {"evaluator": "on-failure"}
    assert policy == wanted.get(service, "no")


@pytest.mark.parametrize("service", sorted(LONG_RUNNING))
def test_the_kernel_holds_a_process_to_it(federation, service):
    status = federation.inside(service, "cat", "/proc/self/status")
    said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(said["CapEff"], 16) == int(said["CapBnd"], 16) == 0
    assert said["NoNewPrivs"] == "1"
    assert said["Uid"].split()[0] != "0"
    tried = "for f in /x /venv/x /etc/fedgate/x /keys/x; do touch $f 2>/dev/null && echo $f; done"
    assert federation.inside(service, "sh", "-c", f"{tried}; true") == ""


@pytest.mark.parametrize("service", sorted(LONG_RUNNING))
def test_secrets_are_files_that_their_owner_alone_reads(federation, service):
    found = federation.inside(service, "find", "/keys", "-name", "*key*", "-type", "f", "-ls")
    assert found
    assert all("-rw-------" in line and "fedgate" in line for line in found.splitlines())
    environment = federation.inspected()[service]["Config"]["Env"]
    assert not [each for each in environment if "PRIVATE" in each or "PASSWORD=" in each]


def test_a_gateway_sees_its_own_key_alone(federation):
    found = federation.inside("gateway-1", "find", "/keys", "-name", "*key*", "-type", "f")
    assert found.split() == ["/keys/gateway/key.pem"]


def test_the_orchestrator_cannot_sign_plans(federation):
    assert federation.inside("orchestrator", "find", "/keys", "-name", "plan-signing*") == ""


def test_the_authoritys_key_is_where_nothing_runs_any_more(federation):
    holders = [
        service
        for service, found in federation.inspected().items()
        if any(each.get("Name") == f"{PROJECT}_authority-keys" for each in found["Mounts"])
    ]
    assert holders == ["pki"]


def test_a_gateway_that_lost_its_orchestrator_is_not_healthy(federation):
    probe = ("fedgate-gateway", "health", "--config", "/etc/fedgate/gateway.toml")
    federation.inside("gateway-1", *probe)
    federation.compose("pause", "orchestrator")
    try:
        check = f"{' '.join(probe)}; echo $?"
        federation.until(
            lambda: federation.inside("gateway-1", "sh", "-c", check).strip() == "1",
            "it notices",
        )
    finally:
        federation.compose("unpause", "orchestrator")


@pytest.mark.usefixtures("federation")
@pytest.mark.parametrize(("target", "limit"), [("orchestrator", 400 * MB), ("gateway", 1700 * MB)])
def test_images_are_small(target, limit):
    size = docker("image", "inspect", "--format", "{{.Size}}", f"fedgate-{target}")
    assert int(size) < limit


@pytest.mark.usefixtures("federation")
@pytest.mark.parametrize("target", ["orchestrator", "gateway"])
def test_an_image_holds_what_its_bill_of_materials_lists(target):
    bill = ROOT / "dist" / "sbom" / f"{target}.cdx.json"
    if not bill.exists():
        pytest.skip("nothing is written yet: make sbom")
    listed = {
        (part["name"], part["version"]) for part in json.loads(bill.read_text())["components"]
    }
    command = ("run", "--rm", "--read-only", "--network", "none", f"fedgate-{target}", "python")
    held = json.loads(docker(*command, "-c", HELD))
    assert {(name, version) for name, version in held if name != "fedgate"} == listed


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
    finished.compose("restart", *sorted(LONG_RUNNING), timeout=300)
    finished.up(*sorted(LONG_RUNNING))
    after = finished.the_run()
    assert (after["run_id"], after["model"]) == (before["run_id"], before["model"])


def test_a_backup_is_made_in_its_container_and_can_be_taken_out(finished, tmp_path):
    config = ("--config", "/etc/fedgate/orchestrator.toml")
    finished.inside("orchestrator", "fedgate", "backup", *config, "--to", "/state/saved")
    finished.compose("cp", "orchestrator:/state/saved", str(tmp_path))
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"backup.json", "journal.db", "signing-key.pem", "weights"}


def test_down_leaves_nothing(finished):
    finished.down()
    assert finished.left_behind() == []
