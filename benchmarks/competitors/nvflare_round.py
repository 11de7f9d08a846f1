"""An NVFlare round of the same work as `benchmarks.round`.

    make bench-competitors
    python -m benchmarks.competitors.nvflare_round --mib 25 --gateways 8 [--rounds 3]

One JSON line. A server and one client for each gateway as `nvflare poc prepare` sets them up, with
mTLS; the clients return the model plus a constant. A round is from the sending of its model to the
average. The server's memory is that of its process and of the one that it starts for the job.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time  # noqa: TID251 - waits
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.competitors.others import Asked, Processes, awaited, peak_mib, show
from benchmarks.transport.model import constant
from benchmarks.transport.places import state_folder

APP = Path(__file__).parent / "nvflare_app"
ADMIN = "admin@nvidia.com"
ORGANISATION = "nvidia"
PATIENCE_S = 120.0


def main(
    mib: Annotated[int, typer.Option(help="Size of the model in MiB.")] = 25,
    gateways: Annotated[int, typer.Option(help="How many.")] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds to measure.")] = 3,
) -> None:
    """Measure and print."""
    asked = Asked("nvflare", mib, gateways, rounds)
    with state_folder(Path(), durable=False) as folder, ExitStack() as stack:
        environment = {
            "NVFLARE_POC_WORKSPACE": str(folder / "poc"),
            "HOME": str(folder),
            "PATH": f"{asked.programs}:/usr/bin:/bin",
        }
        processes = stack.enter_context(Processes(folder, environment))
        prepared = prepare(asked, processes)
        server = start(asked, processes, prepared)
        most = stack.enter_context(peak_mib(server.pid))
        submit(asked, processes, prepared)
        found = awaited(folder / "found.json", server)
        show(asked, version(asked), found, most[0])


def prepare(asked: Asked, processes: Processes) -> Path:
    """Have keys and settings made; return the folder of all sites."""
    count = ("-n", str(asked.gateways))
    made = processes.start("prepare", asked.programs / "nvflare", "poc", "prepare", *count)
    if made.wait(PATIENCE_S):
        raise ChildProcessError((processes.folder / "prepare.log").read_text())
    return next((processes.folder / "poc").glob("*/prod_00"))


def start(asked: Asked, processes: Processes, prepared: Path) -> subprocess.Popen[bytes]:
    """Start the server and all clients, as their own scripts do; return the server."""
    python = asked.programs / "python"
    modules = {"server": "server.server_train"}
    modules |= {site(name): "client.client_train" for name in asked.names}
    settings = ("secure_train=true", f"org={ORGANISATION}", "config_folder=config")
    started = {}
    for name, module in modules.items():
        kind = "server" if name == "server" else "client"
        own = () if kind == "server" else (f"uid={name}",)
        started[name] = processes.start(
            name,
            *(python, "-u", "-m", f"nvflare.private.fed.app.{module}", "-m", prepared / name),
            *("-s", f"fed_{kind}.json", "--set", *own, *settings),
        )
    return started["server"]


def submit(asked: Asked, processes: Processes, prepared: Path) -> None:
    """Submit the job; until all clients have registered, it is tried again."""
    folder = processes.folder
    (folder / "shapes.json").write_text(json.dumps(asked.shapes()))
    app = shutil.copytree(APP, folder / "app")
    constants = ",".join(f"{site(name)}={constant(name)}" for name in asked.names)
    arguments = (folder, prepared / ADMIN, constants, str(asked.rounds + 1))
    deadline = time.monotonic() + PATIENCE_S
    while processes.start(
        "submit", asked.programs / "python", app / "submit.py", *arguments
    ).wait():
        if time.monotonic() > deadline:
            raise ChildProcessError((folder / "submit.log").read_text())


def site(name: str) -> str:
    """Return NVFlare's name of a gateway."""
    return f"site-{name.removeprefix('g')}"


def version(asked: Asked) -> str:
    """Return the version of NVFlare."""
    ask = "import importlib.metadata as m; print(m.version('nvflare'))"
    command = [str(asked.programs / "python"), "-c", ask]
    said = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return str(said.stdout).strip()


if __name__ == "__main__":
    typer.run(main)
