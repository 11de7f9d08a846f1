"""Twenty things that people get wrong: each ends in one sentence, the one that the docs show.

Files, processes and servers are real; what the check says is what the command itself ends with.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
import tomli_w
import torch
from structlog.testing import capture_logs
from typer.testing import CliRunner

from common.config import load_settings
from common.disk import SystemDisk
from common.errors import FederationError
from common.findings import Finding, Level
from common.ids import GatewayId, RunId
from common.listening import AddressTaken
from common.protocol import LedgerHead
from common.python import require
from common.tls import Role
from gateway.agent import Superseded
from gateway.checking import Asked, Checking
from gateway.cli import _run as run_gateway
from gateway.cli import app as fedgate_gateway
from gateway.client import GrpcClient
from gateway.config import GatewayConfig
from gateway.device import is_usable
from gateway.lease import Lease
from gateway.policy import Refused
from gateway.presence import write_presence
from gateway.workshop import Workshop, ledger_file
from orchestrator.checking import Checking as OrchestratorChecking
from orchestrator.server import listening
from tasks.loading import load_task
from tasks.plan_file import read_plan
from tests.at_work import at_work
from tests.fakes import VERSIONS
from tests.members import Clinic
from tests.signing import order, trust_file
from tests.tmpfs import small_disk

DOCS = Path(__file__).parents[2] / "docs" / "how-to" / "when-something-is-wrong.md"
TINY = Path(__file__).parents[1] / "tiny_task.py"
ROW = {"text": "no gout", "tags": "O B-Disease"}
DEAD = 2**22 + 1  # no process of Linux has that number


def documented() -> dict[str, str]:
    """Return the sentence of each row of the table."""
    rows = re.findall(r"^\| ([^|]+?) \| ([^|]+?) \|$", DOCS.read_text(), re.MULTILINE)
    return {name: " ".join(message.split()) for name, message in rows[1:] if set(name) != {"-"}}


def plain(message: str, **meant: object) -> str:
    """Return a sentence with what differs from one machine to the next named instead."""
    said = " ".join(message.split())
    for name, value in sorted(meant.items(), key=lambda item: -len(str(item[1]))):
        said = said.replace(str(value), name.upper())
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE", said)


def check_row(name: str, message: str, **meant: object) -> None:
    """Hold that a sentence is the one which the docs show for it."""
    shown = documented()
    assert shown.get(name) == plain(message, **meant)


@dataclass
class Scene:
    """An orchestrator that serves, and one site beside it, whose settings a test spoils."""

    clinic: Clinic
    folder: Path
    tables: dict[str, object]

    def write(self, **changes: object) -> Path:
        path = self.folder / "gateway.toml"
        tables = {key: value for key, value in (self.tables | changes).items() if value is not None}
        path.write_text(tomli_w.dumps(tables))
        return path

    def settings(self, **changes: object) -> GatewayConfig:
        return load_settings(GatewayConfig, self.write(**changes))

    def data(self, *lines: object) -> dict[str, object]:
        """Write the data; return what names them."""
        path = self.folder / "notes.jsonl"
        path.write_text(
            "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
        )
        return {"path": str(path)}

    async def told(self, *words: str, **changes: object) -> list[Finding]:
        """Return what the check says of the site that is not in order, as the command prints it."""
        config = str(self.write(**changes))
        asked = ["check", "--config", config, "--no-rehearsal", "--format", "json", *words]
        said = await asyncio.to_thread(CliRunner().invoke, fedgate_gateway, asked)
        assert not isinstance(said.exception, Exception) or isinstance(said.exception, SystemExit)
        found = [Finding(**each) for each in json.loads(said.stdout)["findings"]]
        bad = [each for each in found if each.level != Level.OK]
        assert said.exit_code == any(each.level == Level.PROBLEM for each in found)
        return bad

    async def one(self, *words: str, **changes: object) -> str:
        """Return the one thing that the check finds."""
        (found,) = await self.told(*words, **changes)
        return found.message

    async def refused(self, **changes: object) -> FederationError:
        """Return what a gateway's own call at its start ends with."""
        settings = self.settings(**changes)
        async with GrpcClient(settings.address, settings.tls) as client:
            with pytest.raises(FederationError) as refused:
                await client.register(VERSIONS)
        return refused.value

    async def ended(self, **changes: object) -> FederationError:
        """Return what `fedgate-gateway run` ends with, before it calls anybody."""
        settings = self.settings(**changes)
        with pytest.raises(FederationError) as ended:
            await asyncio.to_thread(asyncio.run, run_gateway(settings, None))
        return ended.value


@pytest.fixture
async def scene(tmp_path, monkeypatch):
    """A site for which everything is in order."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    clinic = Clinic(tmp_path)
    with capture_logs():
        async with clinic.serving():
            tls = clinic.issue(Role.GATEWAY, "a")
            site = tmp_path / "site"
            site.mkdir()
            scene = Scene(clinic, site, {})
            scene.tables = {
                "address": clinic.address,
                "state": str(site / "state"),
                "tls": {name: str(path) for name, path in tls},
                "task": {"reference": "tasks.ner:TASK", "labels": ["Disease"]},
                "data": scene.data(ROW),
                "trust": {"plan_keys": str(trust_file(site))},
                "policy": {"epsilon_budget": 8.0},
            }
            yield scene


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


@contextmanager
def taken() -> Iterator[int]:
    """Lend a port of this machine on which something listens that says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def closed() -> int:
    with taken() as port:
        return port


def test_the_table_has_a_row_for_each_of_the_twenty():
    twenty = """wrong port, wrong host, clock off by a day, expired certificate, wrong CA, no space,
        unreadable data, broken line, label unknown, budget too small, noise under the floor,
        plan unsigned, GPU asked where none is, wrong Python, port in use, stale lock,
        two gateways of one name, proxy in the way, IPv6 only, empty data"""
    assert {" ".join(name.split()) for name in twenty.split(",")} <= set(documented())


async def test_where_nothing_is_wrong_nothing_is_found(scene):
    assert await scene.told() == []


async def test_a_wrong_port_is_named(scene):
    port = closed()
    said = await scene.one(address=f"127.0.0.1:{port}")
    assert said == str(await scene.refused(address=f"127.0.0.1:{port}"))
    check_row("wrong port", said, port=port)


async def test_a_wrong_host_is_named(scene):
    address = "orchestrator.invalid:8443"
    said = await scene.one(address=address)
    assert said == str(await scene.refused(address=address))
    check_row("wrong host", said)


async def test_a_clock_that_is_off_by_a_day_is_told_from_the_orchestrators_date(scene):
    scene.clinic.clock.ahead = timedelta(days=1)
    check_row("clock off by a day", await scene.one())


async def test_a_certificate_that_is_over_is_named(scene):
    files = scene.clinic.forged(days=(-2.0, -1.0))
    tls = {name: str(path) for name, path in files}
    said = await scene.one(tls=tls)
    meant = {"file": files.certificate}
    assert plain(said, **meant) == plain(str(await scene.refused(tls=tls)), **meant)
    check_row("expired certificate", said, **meant)


async def test_an_authority_of_another_federation_is_named(scene, tmp_path):
    (tmp_path / "other").mkdir()
    tls = dict(scene.tables["tls"])
    tls["authority"] = str(Clinic(tmp_path / "other").issue(Role.GATEWAY, "a").authority)
    said = await scene.one(tls=tls)
    assert said == str(await scene.refused(tls=tls))
    check_row("wrong CA", said, port=port_of(scene.clinic.address))


class Nearly(SystemDisk):
    """A disk with a little room left."""

    def free(self, folder: Path) -> int:
        return 3 << 20


async def test_a_full_disk_is_named(scene):
    checking = Checking(scene.settings(), disk=Nearly())
    await checking.look(Asked(rehearse=False))
    (found,) = [each for each in checking.findings.all if each.level is not Level.OK]
    check_row("no space", found.message, folder=scene.folder / "state")


async def test_disks_that_are_really_full_are_named_on_both_sides(scene, tmp_path):
    with small_disk(tmp_path / "small", mib=3) as small:
        state = small.folder / "state"
        check_row("no space", await scene.one("--offline", state=str(state)), folder=state)
        checking = OrchestratorChecking(
            scene.clinic.config.model_copy(update={"shared": small.folder})
        )
        await checking.look()
        said = [each.message for each in checking.findings.all if each.kind == "DiskNearlyFull"]
        assert len(said) == 1
        check_row("no space at the orchestrator", *said)
        small.fill()
        assert "has 0 MiB free" in await scene.one("--offline", state=str(state))


async def test_an_orchestrators_full_disk_is_named_as_an_upload_meets_it(scene):
    checking = OrchestratorChecking(scene.clinic.config, disk=Nearly())
    await checking.look()
    (found,) = [each for each in checking.findings.all if each.level is not Level.OK]
    assert found.kind == "DiskNearlyFull"
    check_row("no space at the orchestrator", found.message)


async def test_data_that_the_machine_does_not_give_are_named(scene):
    path = scene.folder / "held.jsonl"
    path.symlink_to("/proc/self/mem")  # there, and not to be read, even by root
    said = await scene.one(data={"path": str(path)})
    assert said == str(await scene.ended(data={"path": str(path)}))
    check_row("unreadable data", said, file=path)


async def test_a_broken_line_is_named_by_its_number(scene):
    data = scene.data(ROW, {"text": "no gout", "tags": "O"})
    said = await scene.one(data=data)
    assert said == str(await scene.ended(data=data))
    check_row("broken line", said, file=data["path"])


async def test_an_unknown_label_is_named_with_its_line(scene):
    data = scene.data(ROW, {"text": "no gout", "tags": "O B-Drug"})
    said = await scene.one(data=data)
    assert said == str(await scene.ended(data=data))
    check_row("label unknown", said, file=data["path"])


async def test_empty_data_are_named(scene):
    data = scene.data()
    said = await scene.one(data=data)
    assert said == str(await scene.ended(data=data))
    check_row("empty data", said, file=data["path"])


def plan_file(scene: Scene, *, noise: float = 20.0) -> Path:
    """Write a plan for the site, of the small task."""
    path = scene.folder / "plan.toml"
    fields = {
        "name": "small",
        "task": {"reference": f"{TINY}:TASK", "labels": ["no", "yes"]},
        "rounds": {"count": 4, "quorum": 1, "deadline_s": 60.0},
        "privacy": {"delta": 1e-5, "target_epsilon": 5.0},
        "hyperparameters": {
            "learning_rate": 1.0,
            "clipping_norm": 1.0,
            "noise_multiplier": noise,
            "sampling_rate": 1.0,
            "local_steps": 1,
        },
        "participants": [{"gateway": "a", "declared_units": 60}],
    }
    path.write_text(tomli_w.dumps(fields))
    return path


TINY_SITE: Mapping[str, object] = {
    "task": {"reference": f"{TINY}:TASK", "labels": ["no", "yes"]},
    "data": {"corpus": "points", "site": "a"},
}


def refusal(scene: Scene, plan: Path, **changes: object) -> str:
    """Return what the gateway itself says to a plan that it is offered."""
    settings = scene.settings(**TINY_SITE, **changes)
    task = load_task(settings.task.reference)
    workshop = Workshop(GatewayId("a"), settings, task, None)
    try:
        found = workshop.review(RunId("first"), read_plan(plan)[0], "0" * 64)
    finally:
        workshop.close()
    assert isinstance(found, Refused)
    return found.sentence


async def test_a_budget_that_is_too_small_is_named_with_what_it_allows(scene):
    plan, small = plan_file(scene), {"policy": {"epsilon_budget": 0.2}}
    said = await scene.one("--plan", str(plan), **TINY_SITE, **small)
    assert said == refusal(scene, plan, **small)
    check_row("budget too small", said)


async def test_noise_under_the_sites_floor_is_named(scene):
    plan = plan_file(scene, noise=10.0)
    floor = {"policy": {"epsilon_budget": 8.0, "noise_multiplier_floor": 15.0}}
    said = await scene.one("--plan", str(plan), **TINY_SITE, **floor)
    assert said == refusal(scene, plan, **floor)
    check_row("noise under the floor", said)


async def started(scene: Scene, run: str) -> None:
    """Have the orchestrator run the plan, ordered by the key that the site obeys."""
    plan, initial = read_plan(plan_file(scene))
    orchestrator = scene.clinic.serving_now.orchestrator
    orchestrator._weights.put(initial.to_bytes())
    await orchestrator.operations.start_run(*order(run, plan), "fed://acme/operator/olga")


async def test_a_run_that_is_in_order_is_accepted_beforehand(scene):
    await started(scene, "first")
    assert await scene.told("--run", "first", **TINY_SITE) == []


async def test_a_plan_that_nobody_signed_is_named(scene):
    await started(scene, "first")
    live = scene.clinic.serving_now.orchestrator.runs.get(RunId("first"))
    live.run = replace(live.run, plan_signature=None)
    check_row("plan unsigned", await scene.one("--run", "first", **TINY_SITE))


async def test_a_plan_by_a_key_that_is_not_in_the_trust_file_is_named(scene):
    await started(scene, "first")
    other = scene.folder / "other-keys"
    other.write_text(f"nora ed25519 {'ab' * 32}\n")
    said = await scene.one("--run", "first", trust={"plan_keys": str(other)}, **TINY_SITE)
    assert "is not in this gateway's trust file" in said


@pytest.mark.skipif(is_usable("cuda"), reason="torch finds a GPU here")
async def test_a_gpu_that_is_not_there_is_named(scene):
    said = await scene.one(device="cuda")
    assert said == str(await scene.ended(device="cuda"))
    check_row("GPU asked where none is", said, version=torch.__version__)


def test_a_python_that_is_too_old_is_named():
    with pytest.raises(SystemExit) as left:
        require(3, 10)
    check_row("wrong Python", str(left.value), executable=sys.executable)


OLD = next((found for n in (10, 9, 8) if (found := shutil.which(f"python3.{n}"))), None)


@pytest.mark.skipif(OLD is None, reason="no older Python is installed")
@pytest.mark.parametrize("module", ["cli", "gateway", "orchestrator"])
def test_under_an_older_python_every_command_says_so_and_nothing_else(module):
    root = Path(__file__).parents[2]
    words = [str(OLD), "-m", module, "--help"]
    if subprocess.run([str(OLD), "-c", ""], check=False, capture_output=True).returncode:
        pytest.skip("the older Python does not run")
    said = subprocess.run(words, capture_output=True, text=True, cwd=root, check=False)
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert "fedgate needs 3.11 or newer" in line


async def test_a_port_that_is_taken_is_named(scene, tmp_path):
    with taken() as port:
        config = scene.clinic.config.model_copy(
            update={"address": f"127.0.0.1:{port}", "state": tmp_path / "second", "enrolment": None}
        )
        checking = OrchestratorChecking(config)
        await checking.look()
        (found,) = [each for each in checking.findings.all if each.level is not Level.OK]
        with pytest.raises(AddressTaken) as refused:
            async with listening(config):
                pass
    assert found.message == str(refused.value)
    check_row("port in use", found.message, port=port)


async def test_a_lock_that_a_crash_left_behind_is_said_to_be_free(scene):
    state = scene.folder / "state"
    state.mkdir()
    (state / "presence.json").write_text(json.dumps({"process": DEAD, "connected": True}))
    (state / "ledger.sqlite.lock").touch()
    said = await scene.one()
    check_row("stale lock", said, folder=state, process=DEAD)
    Workshop(GatewayId("a"), scene.settings(), load_task("tasks.ner:TASK"), None).close()


async def test_a_state_folder_that_another_process_has_is_named(scene):
    state = scene.folder / "state"
    state.mkdir()
    lease = Lease.take(ledger_file(state))
    try:
        (said,) = [each.message for each in await scene.told() if each.about == "lock"]
        assert said == str(await scene.ended())
    finally:
        lease.release()
    check_row("state folder in use", said, folder=state)


async def test_a_ledger_that_lacks_what_the_orchestrator_has_seen_is_named(scene):
    seen = LedgerHead(3, "ab" * 32)  # of a gateway of the same name, with a folder of its own
    scene.clinic.serving_now.orchestrator.ledger_heads.confirm(GatewayId("a"), seen)
    said = await scene.one()
    assert "has countersigned record 3 (abababababab)" in said
    assert "`fedgate-gateway ledger merge`" in said


async def test_of_two_gateways_of_one_name_the_older_ends_with_the_reason(scene):
    settings = scene.settings(**TINY_SITE)
    workshop = Workshop(GatewayId("a"), settings, load_task(settings.task.reference), None)
    connected = asyncio.Event()

    def note(now) -> None:
        write_presence(settings.state, connected=now)
        if now:
            connected.set()

    async with (
        GrpcClient(settings.address, settings.tls) as first,
        GrpcClient(settings.address, settings.tls) as second,
        at_work(workshop, first, note) as process,
    ):
        await connected.wait()
        assert await scene.told(**TINY_SITE) == []  # a check leaves the first one in its place
        assert not process.done()
        await second.register(VERSIONS)
        with pytest.raises(Superseded) as ended:
            await process
    check_row("two gateways of one name", str(ended.value))


@asynccontextmanager
async def proxy() -> AsyncIterator[str]:
    """Lend a proxy that lets nobody through."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_proxy_that_lets_nobody_through_is_named(scene, monkeypatch):
    async with proxy() as where:
        monkeypatch.setenv("https_proxy", where)
        said = await scene.one()
        assert said == str(await scene.refused())
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert await scene.told() == []
    check_row(
        "proxy in the way", said, proxy_port=port_of(where), port=port_of(scene.clinic.address)
    )


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as found:
            found.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_orchestrator_that_is_not_there_over_ipv6_is_named(scene):
    address = f"[::1]:{port_of(scene.clinic.address)}"
    said = await scene.one(address=address)
    assert said == str(await scene.refused(address=address))
    check_row("IPv6 only", said, port=port_of(scene.clinic.address))
