"""What the sockets alone take for the bytes of a round, without gRPC and without checks.

    python -m benchmarks.floor --mib 100 --gateways 8 [--rounds 9] [--durable --folder .]

One JSON line; `benchmarks.transport.floor` says what is moved and written.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.machine import described
from benchmarks.transport.floor import Floor, Work
from benchmarks.transport.places import state_folder


def main(
    mib: Annotated[int, typer.Option(help="Size of the model in MiB.")] = 100,
    gateways: Annotated[int, typer.Option(help="How many.")] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds to measure.")] = 9,
    durable: Annotated[bool, typer.Option("--durable", help="Write and fsync.")] = False,  # noqa: FBT002
    folder: Annotated[Path, typer.Option(help="For durable files.")] = Path(),
) -> None:
    """Measure and print."""
    with (
        state_folder(folder, durable=durable) as state,
        Floor(Work(mib, gateways, state, durable)) as floor,
    ):
        seconds = [floor.round() for _ in range(rounds)]
    line = {
        "benchmark": "floor",
        "mib": mib,
        "gateways": gateways,
        "durable": durable,
        "round_median_s": round(statistics.median(seconds), 4),
        "round_min_s": round(min(seconds), 4),
    }
    print(json.dumps({**line, **described()}), flush=True)


if __name__ == "__main__":
    typer.run(main)
