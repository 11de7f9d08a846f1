"""What a round takes: every gateway fetches the model and sends an update, all are averaged.

    python -m benchmarks.round --mib 100 --gateways 8 [--rounds 9] [--tls] [--with-floor]
    python -m benchmarks.round --mib 100 --gateways 8 --durable --folder . --with-floor
    python -m benchmarks.round --mib 100 --gateways 8 --wire bf16

One JSON line. The processes are real; training is replaced by a constant of each gateway's own,
written in the format that `--wire` names, and the average is checked to the last bit. Without
`--tls` callers are believed, which only this benchmark can do. State lies in memory unless it is
`--durable`: then it lies in `--folder`. With `--with-floor` the same bytes go over raw sockets in
turns with the rounds (`benchmarks.floor`), as float32.
"""

from __future__ import annotations

import json
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import described
from benchmarks.transport.federation import Federation, Setting
from benchmarks.transport.floor import Floor, Work
from benchmarks.transport.places import state_folder
from common.wire_formats import WireFormat

AT_A_TIME = 3  # rounds between two of the floor's


class Wire(StrEnum):
    """How updates are written."""

    FLOAT32 = "float32"
    BF16 = "bf16"
    INT8 = "int8"

    @property
    def wire_format(self) -> WireFormat:
        """The plan's name for it."""
        return WireFormat.BFLOAT16 if self is Wire.BF16 else WireFormat(self)


@dataclass
class Found:
    """What was measured so far."""

    seconds: list[float] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)  # of the orchestrator, in a round
    correct: bool = True

    def line(self) -> dict[str, Any]:
        """Return it as the result shows it."""
        median = statistics.median(self.seconds)
        line: dict[str, Any] = {
            "round_median_s": round(median, 4),
            "round_min_s": round(min(self.seconds), 4),
            "rounds": len(self.seconds),
            "orchestrator_cpu_s": round(statistics.median(self.cpu_s), 3),
            "correct": self.correct,
        }
        if self.floors:
            floor = statistics.median(self.floors)
            line["floor_median_s"] = round(floor, 4)
            line["ratio"] = round(median / floor, 2)
            line["ratio_of_minima"] = round(min(self.seconds) / min(self.floors), 2)
        return line


def measure(federation: Federation, sockets: Floor | None, rounds: int) -> Found:
    """Measure so many rounds, in turns with as many of the sockets'."""
    found = Found()
    while len(found.seconds) < rounds:
        if sockets is not None:
            found.floors += [sockets.round() for _ in range(AT_A_TIME)]
        before = federation.orchestrator_cpu_s
        measured = federation.rounds(min(AT_A_TIME, rounds - len(found.seconds)))
        taken = len(measured.seconds) + 1
        found.cpu_s.append((federation.orchestrator_cpu_s - before) / taken)
        found.seconds += measured.seconds
        found.correct = found.correct and measured.correct
    return found


def main(  # noqa: PLR0913 - options
    mib: Annotated[int, typer.Option(help="Size of the model in MiB.")] = 100,
    gateways: Annotated[int, typer.Option(help="How many.")] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds to measure.")] = 9,
    processes: Annotated[int, typer.Option(help="For the gateways; 0: one each.")] = 0,
    tls: Annotated[bool, typer.Option("--tls", help="With mTLS.")] = False,  # noqa: FBT002
    durable: Annotated[bool, typer.Option("--durable", help="State on the disk.")] = False,  # noqa: FBT002
    with_floor: Annotated[bool, typer.Option("--with-floor", help="And raw sockets.")] = False,  # noqa: FBT002
    folder: Annotated[Path, typer.Option(help="For durable state.")] = Path(),
    wire: Annotated[Wire, typer.Option(help="How updates are written.")] = Wire.FLOAT32,
) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        state = stack.enter_context(state_folder(folder, durable=durable))
        sockets = None
        if with_floor:
            sockets = stack.enter_context(Floor(Work(mib, gateways, state / "floor", durable)))
        place, many = state / "federation", processes or gateways
        setting = Setting(mib, gateways, tls, place, many, wire.wire_format)
        federation = stack.enter_context(Federation(setting))
        found = measure(federation, sockets, rounds)
        memory = {
            "orchestrator_peak_rss_mib": round(federation.orchestrator_peak_mib),
            "orchestrator_idle_rss_mib": round(federation.idle_rss_mib),
            "gateway_peak_rss_mib": round(federation.gateway_peak_mib),
        }
    asked = {"mib": mib, "gateways": gateways, "tls": tls, "durable": durable, "wire": wire}
    whole = {"benchmark": "round", **asked, **found.line(), **memory, **described()}
    print(json.dumps(whole), flush=True)


if __name__ == "__main__":
    typer.run(main)
