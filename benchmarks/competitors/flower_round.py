"""A Flower round of the same work as `benchmarks.round`.

    make bench-competitors
    python -m benchmarks.competitors.flower_round --mib 25 --gateways 8 [--rounds 3]

One JSON line. A SuperLink and one SuperNode for each gateway, all as they are by default, without
TLS and without a database; the clients return the model plus a constant. A round is from the
making of its messages to their average. The server's memory is that of the SuperLink and of all
that it starts.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.competitors.others import Asked, Processes, awaited, listens, peak_mib, show
from benchmarks.transport.model import constant
from benchmarks.transport.places import state_folder

APP = Path(__file__).parent / "flower_app"
SETTINGS = '[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "{}"\ninsecure = true\n'


def main(
    mib: Annotated[int, typer.Option(help="Size of the model in MiB.")] = 25,
    gateways: Annotated[int, typer.Option(help="How many.")] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds to measure.")] = 3,
) -> None:
    """Measure and print."""
    asked = Asked("flower", mib, gateways, rounds)
    with state_folder(Path(), durable=False) as folder, ExitStack() as stack:
        environment = {
            "FLWR_HOME": str(folder),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": f"{asked.programs}:/usr/bin:/bin",
        }
        processes = stack.enter_context(Processes(folder, environment))
        control, server = superlink(asked, processes)
        most = stack.enter_context(peak_mib(server.pid))
        submitted = submit(asked, processes, control)
        found = awaited(folder / "found.json", server, submitted)
        show(asked, version(asked), found, most[0])


def superlink(asked: Asked, processes: Processes) -> tuple[str, subprocess.Popen[bytes]]:
    """Start the server and all nodes; return where runs are submitted, once they are taken."""
    server_io, fleet, control = (f"127.0.0.1:{port}" for port in free_ports(3))
    addresses = (
        "--serverappio-api-address",
        server_io,
        "--fleet-api-address",
        fleet,
        "--control-api-address",
        control,
    )
    server = processes.start(
        "superlink", asked.programs / "flower-superlink", "--insecure", *addresses
    )
    for name, port in zip(asked.names, free_ports(asked.gateways), strict=True):
        processes.start(
            name,
            asked.programs / "flower-supernode",
            "--insecure",
            "--superlink",
            fleet,
            "--clientappio-api-address",
            f"127.0.0.1:{port}",
            "--node-config",
            f"constant={constant(name)}",
        )
    listens(control, server)
    return control, server


def submit(asked: Asked, processes: Processes, control: str) -> subprocess.Popen[bytes]:
    """Submit the run; the server waits for its nodes, but nobody waits for the server."""
    folder = processes.folder
    (folder / "shapes.json").write_text(json.dumps(asked.shapes()))
    (folder / "config.toml").write_text(SETTINGS.format(control))
    app = shutil.copytree(APP, folder / "app")
    settings = f'folder="{folder}" gateways={asked.gateways} rounds={asked.rounds + 1}'
    command = (asked.programs / "flwr", "run", app, "here", "--stream", "--run-config", settings)
    return processes.start("run", *command)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listened on a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def version(asked: Asked) -> str:
    """Return the version of Flower."""
    command = [str(asked.programs / "flower-superlink"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return str(said.stdout).split()[-1]


if __name__ == "__main__":
    typer.run(main)
