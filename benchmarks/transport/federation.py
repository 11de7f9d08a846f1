"""A federation of real processes on loopback, and what its rounds take."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time  # noqa: TID251 - measures
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w

from benchmarks.machine import ROOT
from benchmarks.transport import plain, signing
from benchmarks.transport.floor import MIB
from benchmarks.transport.model import after, initial, plan
from benchmarks.transport.running import Running
from cli import pki
from cli.operator_client import OperatorClient
from common.ids import RunId
from common.protocol import RunState
from common.tls import Role, TlsFiles
from common.transfer import digest_of
from common.wire import plan_to_bytes
from common.wire_formats import WireFormat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeVar

    from common.protocol import RunStatus
    from common.weights import Weights

    Answer = TypeVar("Answer")

PATIENCE_S = 300.0
NAME = "transport"


@dataclass(frozen=True)
class Setting:
    """What federation is measured."""

    mib: int  # of the model
    gateways: int
    tls: bool
    folder: Path  # where all of its state lies
    processes: int  # for the gateways
    wire_format: WireFormat = WireFormat.FLOAT32

    @property
    def names(self) -> tuple[str, ...]:
        """The gateways' names."""
        return tuple(f"g{number}" for number in range(1, self.gateways + 1))


@dataclass(frozen=True)
class Measured:
    """What some rounds took."""

    run: RunId
    seconds: tuple[float, ...]  # of each round: from the word of one published to the next
    correct: bool  # the average, to the last bit


class Federation(Running):
    """Processes that are connected and wait for runs; `with` it."""

    def __init__(self, setting: Setting) -> None:
        """Prepare; nothing is started yet."""
        super().__init__()
        self._setting = setting
        self._runs = 0
        self._gateways: list[subprocess.Popen[bytes]] = []

    def _begin(self) -> None:
        folder = self._setting.folder
        folder.mkdir(parents=True, exist_ok=True)
        pki.init(folder / "pki", NAME)
        self._keys(Role.ORCHESTRATOR, "orchestrator")
        self._keys(Role.OPERATOR, "operator")
        signing.make(folder)
        if not self._setting.tls:
            self._stack.enter_context(plain.dialling_plainly("operator"))
        settings = folder / "orchestrator.toml"
        keys = self._files("orchestrator").model_dump(mode="json")
        state = str(folder / "orchestrator")
        text = {"federation": NAME, "address": "127.0.0.1:0", "state": state, "tls": keys}
        settings.write_text(tomli_w.dumps({**text, "log": {"style": "json"}}))
        mode = "tls" if self._setting.tls else "plain"
        self._orchestrator = self._start("orchestrator", str(settings), mode)
        address = folder / "orchestrator" / "address"
        self._until(address.exists, "the orchestrator listens")
        self._address = address.read_text()
        self._start_gateways(mode)
        self.idle_rss_mib = rss_mib(self._orchestrator.pid)
        self.start_from(initial(self._setting.mib))

    def start_from(self, weights: Weights) -> None:
        """Let the runs that follow start from `weights`."""
        self.initial = weights
        self._ask(lambda operator: operator.upload_weights(weights.data))

    def rounds(self, count: int) -> Measured:
        """Run once for `count` rounds and one before, which is not measured."""
        self._runs += 1
        run, names = RunId(f"run-{self._runs}"), self._setting.names
        wire_format = self._setting.wire_format
        begun = plan_to_bytes(plan(self.initial, names, count + 1, wire_format))
        signature = signing.signed(self._setting.folder, run, begun)

        async def measure(operator: OperatorClient) -> tuple[list[float], RunStatus, memoryview]:
            await operator.start_run(run, begun, signature)
            seen: dict[int, float] = {}
            async for status, _ in operator.watch_run(run):
                seen.setdefault(status.published_round, time.perf_counter())
            data = await operator.fetch_weights(status.weights or self.initial.digest)
            return list(seen.values()), status, data

        moments, status, data = self._ask(measure)
        if status.state is not RunState.COMPLETED or len(moments) < count + 1:
            raise RuntimeError(f"{status.state}: {status.reason}; see {self._setting.folder}")
        ends = moments[-(count + 1) :]
        seconds = tuple(later - earlier for earlier, later in pairwise(ends))
        expected = after(self.initial, names, count + 1, wire_format)
        return Measured(run, seconds, digest_of(data) == expected.digest)

    @property
    def orchestrator_log(self) -> str:
        """What the orchestrator has logged so far."""
        return (self._setting.folder / "orchestrator-0.log").read_text()

    @property
    def gateway_logs(self) -> list[str]:
        """What each process of gateways has logged so far."""
        count = len(self._gateways)
        return [(self._setting.folder / f"gateway-{n + 1}.log").read_text() for n in range(count)]

    @property
    def watched(self) -> tuple[int, int]:
        """The process ids of the orchestrator and of one process of gateways."""
        return self._orchestrator.pid, self._gateways[0].pid

    @property
    def orchestrator_peak_mib(self) -> float:
        """Most resident memory of the orchestrator so far, in MiB."""
        return rss_mib(self._orchestrator.pid, "VmHWM")

    @property
    def orchestrator_cpu_s(self) -> float:
        """Processor seconds of the orchestrator so far."""
        return cpu_s(self._orchestrator.pid)

    @property
    def gateways_cpu_s(self) -> float:
        """Processor seconds of all gateways so far."""
        return sum(cpu_s(process.pid) for process in self._gateways)

    @property
    def gateway_peak_mib(self) -> float:
        """Most resident memory of a process of gateways so far, in MiB."""
        return max(rss_mib(process.pid, "VmHWM") for process in self._gateways)

    def _start_gateways(self, mode: str) -> None:
        setting = self._setting
        for name in setting.names:
            self._keys(Role.GATEWAY, name)
        for place in range(setting.processes):
            names = setting.names[place :: setting.processes]
            arguments = (str(setting.folder), self._address, mode, *names)
            self._gateways.append(self._start("gateway", *arguments))
        self._until(
            lambda: sum(log.count('"registered"') for log in self.gateway_logs) >= setting.gateways,
            "every gateway is connected",
        )

    def _start(self, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
        number = len(self._gateways) + 1 if kind == "gateway" else 0
        command = [sys.executable, "-m", f"benchmarks.transport.{kind}_process", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with (self._setting.folder / f"{kind}-{number}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - ours
                command, cwd=ROOT, stdout=log, stderr=log, env=environment
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def _keys(self, role: Role, name: str) -> None:
        pki.issue(
            self._setting.folder / "pki",
            role=role,
            name=name,
            out=self._setting.folder / "keys" / name,
        )

    def _files(self, name: str) -> TlsFiles:
        keys = self._setting.folder / "keys" / name
        return TlsFiles(
            authority=keys / "ca.pem", certificate=keys / "cert.pem", key=keys / "key.pem"
        )

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.perf_counter() + PATIENCE_S
        while not holds():
            if self._orchestrator.poll() is not None:
                raise ChildProcessError(self.orchestrator_log)
            if time.perf_counter() > deadline:
                raise TimeoutError(f"{what}: not within {PATIENCE_S:g} s")
            time.sleep(0.02)

    def _ask(self, question: Callable[[OperatorClient], Awaitable[Answer]]) -> Answer:
        async def ask() -> Answer:
            async with OperatorClient(self._address, self._files("operator")) as operator:
                return await question(operator)

        return asyncio.run(ask())


def rss_mib(pid: int, field: str = "VmRSS") -> float:
    """Return resident memory of a process, in MiB: now, or with VmHWM the most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MIB
    raise LookupError(field)


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
