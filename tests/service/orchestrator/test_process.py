"""The process as it is started: `python -m orchestrator`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from cli.operator_client import OperatorClient
from common.clock import SystemClock
from common.config import SettingsInvalid, load_settings
from common.errors import UnavailableError
from common.listening import AddressTaken
from common.tls import Role
from orchestrator.config import Limits, OrchestratorConfig
from orchestrator.engines import url_of
from orchestrator.fencing import Superseded
from orchestrator.orchestrator import Orchestrator
from orchestrator.probe import check_health
from orchestrator.server import listening, serve
from tests.certificates import Authority
from tests.fakes import INITIAL

MIB_KB = 1024


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority.make(tmp_path / "keys")


@pytest.fixture
def settings(tmp_path, authority) -> Path:
    return write_settings(tmp_path, authority)


def write_settings(folder: Path, authority: Authority, more: str = "") -> Path:
    tls = authority.issue(Role.ORCHESTRATOR, "o")
    lines = [f'{name} = "{path}"' for name, path in tls]
    head = (
        f'federation = "acme"\naddress = "127.0.0.1:0"\nstate = "{folder / "s"}"\n{more}\n[tls]\n'
    )
    path = folder / "orchestrator.toml"
    path.write_text(head + "\n".join(lines))
    return path


async def start(path: Path, **options) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "orchestrator", "--config", str(path))
    return await asyncio.create_subprocess_exec(*command, **options)


def unmeasured() -> dict[str, str]:
    """This process's environment without what makes coverage measure a child, and weigh it down."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE", "COV_"))}


async def serving(process: asyncio.subprocess.Process, folder: Path) -> None:
    while not await check_health(folder / "s" / "health.sock"):
        assert process.returncode is None
        await asyncio.wait([asyncio.create_task(process.wait())], timeout=0.05)


def resident_kb(process: asyncio.subprocess.Process) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def test_it_serves_idles_small_and_drains_on_a_signal(tmp_path, settings):
    process = await start(settings, env=unmeasured())
    await serving(process, tmp_path)
    assert resident_kb(process) < 100 * MIB_KB
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
    assert not (tmp_path / "s" / "address").exists()


async def test_every_line_of_its_log_is_one_event(tmp_path, authority):
    path = write_settings(
        tmp_path, authority, more='[log]\nstyle = "json"\n[metrics]\naddress = "127.0.0.1:0"'
    )
    process = await start(path, stderr=asyncio.subprocess.PIPE)
    await serving(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    _, text = await process.communicate()
    lines = [json.loads(line) for line in text.decode().splitlines()]
    assert [line["event"] for line in lines] == ["measuring", "serving", "stopped"]
    assert all({"level", "timestamp"} <= line.keys() for line in lines)


async def test_wrong_settings_are_said_on_one_screen(tmp_path, authority):
    path = write_settings(tmp_path, authority, more='drain_s = -1\nunknown = "x"')
    process = await start(path, stderr=asyncio.subprocess.PIPE)
    _, text = await process.communicate()
    assert process.returncode == 1
    assert "drain_s" in text.decode()
    assert "unknown" in text.decode()
    assert "Traceback" not in text.decode()


def test_a_socket_path_that_is_too_long_is_refused(tmp_path, authority):
    path = write_settings(tmp_path, authority, more=f'health_socket = "{"x" * 200}"')
    with pytest.raises(SettingsInvalid, match="at most 107"):
        load_settings(OrchestratorConfig, path)


async def test_a_taken_address_is_said(tmp_path, settings):
    config = load_settings(OrchestratorConfig, settings)
    async with listening(config) as server:
        taken = config.model_copy(update={"address": server.address, "state": tmp_path / "another"})
        with pytest.raises(AddressTaken, match=server.address):
            async with listening(taken):
                pass


async def served(config: OrchestratorConfig) -> tuple[asyncio.Task[None], str]:
    """Begin to serve in this process; return the task and the address."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    return asyncio.create_task(serve(config, ready=address.set_result)), await address


async def test_a_signal_ends_the_server(settings):
    task, _ = await served(load_settings(OrchestratorConfig, settings))
    signal.raise_signal(signal.SIGTERM)
    await task


async def test_a_server_ends_when_another_took_over_its_state(authority, settings):
    config = load_settings(OrchestratorConfig, settings)
    task, address = await served(config)
    newer = Orchestrator(
        config.state, url_of(config), federation="acme", clock=SystemClock(), limits=Limits()
    )
    async with OperatorClient(address, authority.issue(Role.OPERATOR, "olga")) as olga:
        with pytest.raises(UnavailableError, match="another orchestrator took over"):
            await olga.upload_weights(INITIAL.to_bytes())
    with pytest.raises(Superseded):
        await task
    await newer.close()
