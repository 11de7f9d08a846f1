"""What the rounds of other systems have in common: their processes, memory and result."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import time  # noqa: TID251 - it measures
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.machine import ROOT, described
from benchmarks.transport.model import constant, layout
from benchmarks.transport.running import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

MIB = 1 << 20
EVERY_S = 0.1
PATIENCE_S = 1800.0
TOLERANCE = 1e-4  # relative: they average in float32


class NotInstalled(SystemExit):
    """The system has no virtual environment yet."""

    def __init__(self, system: str) -> None:
        super().__init__(f"{system} is not installed: `make bench-competitors` does it")


@dataclass(frozen=True)
class Asked:
    """What is to be measured."""

    system: str  # the name of its lock and of its virtual environment
    mib: int
    gateways: int
    rounds: int

    @property
    def names(self) -> tuple[str, ...]:
        """The gateways' names."""
        return tuple(f"g{number}" for number in range(1, self.gateways + 1))

    @property
    def programs(self) -> Path:
        """Where the system's programs are; raise NotInstalled."""
        folder = ROOT / f".venv-{self.system}" / "bin"
        if not folder.is_dir():
            raise NotInstalled(self.system)
        return folder

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the tensors of the model, as `benchmarks.round` has them."""
        return {tensor.name: tensor.shape for tensor in layout(self.mib).tensors}


class Processes(Running):
    """The processes of another system; `with` it. Their output goes to files in `folder`."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__()
        self.folder = folder
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}

    def start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start one; it ends with the others."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - ours to choose
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=self._environment,
            )
        self._stack.callback(_end, process.pid)
        return process


def _end(pid: int) -> None:
    """End a process and all that it started."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        family = [*root.children(recursive=True), root]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(family, timeout=10)


@contextmanager
def peak_mib(pid: int) -> Iterator[list[float]]:
    """Lend a list that holds, at the end, the most memory that a process and its children had."""
    most, ended = [0.0], Event()

    def look() -> None:
        while not ended.wait(EVERY_S):
            most[0] = max(most[0], _resident(pid) / MIB)

    thread = Thread(target=look, name="memory")
    thread.start()
    try:
        yield most
    finally:
        ended.set()
        thread.join()


def _resident(pid: int) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for each in (root, *root.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
    return total


def awaited(path: Path, *processes: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return the JSON of a file that is to appear while the processes live."""
    _until(path.exists, f"no result: see the logs in {path.parent}", processes)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def listens(address: str, *processes: subprocess.Popen[bytes]) -> None:
    """Return once somebody listens on `address`, which one of the processes is to do."""
    host, _, port = address.rpartition(":")

    def answers() -> bool:
        with socket.socket() as tried:
            return tried.connect_ex((host, int(port))) == 0

    _until(answers, f"nobody listens on {address}", processes)


def _until(
    is_so: Callable[[], bool], otherwise: str, processes: Sequence[subprocess.Popen[bytes]]
) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        if any(process.poll() for process in processes):
            raise ChildProcessError(f"a process has failed; {otherwise}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_S:g} s; {otherwise}")
        time.sleep(EVERY_S)


def show(asked: Asked, version: str, found: Mapping[str, Any], server_peak_mib: float) -> None:
    """Print the result; the first round is not counted."""
    seconds = found["seconds"][1:]
    mean = statistics.fmean(map(constant, asked.names))
    expected = mean * len(found["seconds"])
    line = {
        "benchmark": "competitors",
        "system": asked.system,
        "version": version,
        "mib": asked.mib,
        "gateways": asked.gateways,
        "round_median_s": round(statistics.median(seconds), 4),
        "round_min_s": round(min(seconds), 4),
        "rounds": len(seconds),
        "server_peak_rss_mib": round(server_peak_mib),
        "correct": all(abs(grown - expected) <= TOLERANCE * expected for grown in found["grown"]),
    }
    print(json.dumps({**line, **described()}), flush=True)
