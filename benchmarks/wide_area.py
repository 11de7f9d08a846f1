"""How much of a link with a long round trip a model fills, by the window on both sides.

    python -m benchmarks.wide_area [--mbit 100] [--rtt-ms 200] [--windows 1,8] [--mib 50]

Two JSON lines for each window: a whole download, a whole upload, each with all of its round trips
and TCP's slow start. Orchestrator and gateway are real processes with mTLS in network namespaces of
their own; needs root (`tests.hosts.lab` says what else), else it says so and measures nothing.
"""

from __future__ import annotations

import json
import sys
import time  # noqa: TID251 - waits for processes
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tomli_w
import typer

from benchmarks.machine import described
from benchmarks.transport import signing
from benchmarks.transport.places import state_folder
from benchmarks.transport.wide_area_process import GATEWAY, files
from cli import pki
from common.tls import Role
from tests.hosts.lab import Lab, address, why_not

if TYPE_CHECKING:
    import subprocess

PORT = 8443
PATIENCE_S = 300.0
PROCESSES = "benchmarks.transport"


def measure(lab: Lab, folder: Path, *, mib: int, window_mib: float) -> list[dict[str, Any]]:
    """Return what the download and the upload of one round took."""
    where = f"{address(1)}:{PORT}"
    _lay_out(folder, where, window_mib)
    said = folder / "gateway.log"
    with said.open("wb") as log, (folder / "orchestrator.log").open("wb") as other:
        process = f"{PROCESSES}.orchestrator_process"
        lab.start(1, [sys.executable, "-m", process, str(folder / "orchestrator.toml")], other)
        process = f"{PROCESSES}.wide_area_process"
        common = [str(folder), where]
        gateway = [sys.executable, "-m", process, "gateway", *common, str(window_mib)]
        operator = [sys.executable, "-m", process, "operator", *common, str(mib)]
        _until((folder / "orchestrator" / "address").exists)
        lab.start(2, gateway, log)
        _until(lambda: '"registered"' in said.read_text())
        _finish(lab.start(1, operator, other), folder)
    lines = (json.loads(line) for line in said.read_text().splitlines())
    return [line for line in lines if "direction" in line]


def _lay_out(folder: Path, where: str, window_mib: float) -> None:
    pki.init(folder / "pki", "wide")
    signing.make(folder)
    for role, name, hosts in (
        (Role.ORCHESTRATOR, "orchestrator", (address(1),)),
        (Role.OPERATOR, "operator", ()),
        (Role.GATEWAY, GATEWAY, ()),
    ):
        keys = folder / "keys" / name
        pki.issue(folder / "pki", role=role, name=name, out=keys, hosts=hosts)
    text = {
        "federation": "wide",
        "address": where,
        "state": str(folder / "orchestrator"),
        "tls": files(folder, "orchestrator").model_dump(mode="json"),
        "http2": {"window_mib": window_mib},
    }
    (folder / "orchestrator.toml").write_text(tomli_w.dumps(text))


def _until(holds: Any) -> None:
    deadline = time.perf_counter() + PATIENCE_S
    while not holds():
        if time.perf_counter() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def _finish(operator: subprocess.Popen[bytes], folder: Path) -> None:
    if operator.wait(PATIENCE_S):
        raise ChildProcessError((folder / "orchestrator.log").read_text())


def main(
    mbit: Annotated[float, typer.Option(help="What the gateway's link carries.")] = 100.0,
    rtt_ms: Annotated[float, typer.Option(help="Its round trip.")] = 200.0,
    loss: Annotated[float, typer.Option(help="The share of frames lost, each way.")] = 0.0,
    windows: Annotated[str, typer.Option(help="In MiB, of both sides.")] = "1,8",
    mib: Annotated[int, typer.Option(help="Size of the model in MiB.")] = 50,
    congestion: Annotated[str, typer.Option(help="TCP's congestion control.")] = "cubic",
) -> None:
    """Measure and print."""
    if (why := why_not()) is not None:
        print(f"not measured: {why}", file=sys.stderr)
        return
    for window in map(float, windows.split(",")):
        with state_folder(Path(), durable=False) as folder, Lab(2, congestion=congestion) as lab:
            lab.cable(2, delay_ms=rtt_ms / 2, mbit=mbit, loss=loss)
            control = lab.run(1, ["cat", "/proc/sys/net/ipv4/tcp_congestion_control"]).strip()
            for found in measure(lab, folder, mib=mib, window_mib=window):
                filled = found["bytes"] * 8 / 1e6 / found["seconds"] / mbit
                line = {
                    "benchmark": "wide_area",
                    "link_mbit": mbit,
                    "rtt_ms": rtt_ms,
                    "loss": loss,
                    "congestion_control": control,
                    "mib": mib,
                    "window_mib": window,
                    "direction": found["direction"],
                    "seconds": round(found["seconds"], 2),
                    "filled": round(filled, 3),
                }
                print(json.dumps({**line, **described()}), flush=True)


if __name__ == "__main__":
    typer.run(main)
