"""How many gateways one orchestrator serves: told of a round, answering it, and only watching.

    python -m benchmarks.fanout --gateways 1000 [--mib 1] [--rounds 5] [--processes 4]

One JSON line. Every gateway has its own certificate and its own mTLS connection; several share a
process, which is what a machine of a few cores can hold. A round counts as told from the moment
before it is recorded until the last gateway has read the word, which the processes tell by the
clock they share. Errors are calls that failed, connections that were made again, refusals and
warnings in any log. First of all the gateways only watch, for `--idle-s`.
"""

from __future__ import annotations

import json
import statistics
import time  # noqa: TID251 - measures
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import described
from benchmarks.transport import moments
from benchmarks.transport.federation import Federation, Setting
from benchmarks.transport.places import state_folder

CALM_S = 2.0  # until what follows a connection is over


@dataclass(frozen=True)
class Found:
    """What was measured."""

    told_s: tuple[float, ...]  # of each round
    round_s: tuple[float, ...]
    idle_cpu: float  # of one core
    errors: int
    correct: bool

    def line(self) -> dict[str, Any]:
        """Return it as the result shows it."""
        return {
            "told_last_median_s": round(statistics.median(self.told_s), 4),
            "told_last_max_s": round(max(self.told_s), 4),
            "round_median_s": round(statistics.median(self.round_s), 3),
            "rounds": len(self.round_s),
            "errors": self.errors,
            "orchestrator_idle_cpu_percent": round(100 * self.idle_cpu, 2),
            "correct": self.correct,
        }


def measure(federation: Federation, rounds: int, idle_s: float) -> Found:
    """Let the gateways watch for `idle_s`, then measure so many rounds after one that is not."""
    time.sleep(CALM_S)
    before = federation.orchestrator_cpu_s
    time.sleep(idle_s)
    idle_cpu = (federation.orchestrator_cpu_s - before) / idle_s
    measured = federation.rounds(rounds)
    logs = federation.orchestrator_log, federation.gateway_logs
    told_s = moments.told_s(*logs, measured.run)[1:]
    errors = moments.errors(*logs)
    return Found(told_s, measured.seconds, idle_cpu, errors, measured.correct)


def main(
    gateways: Annotated[int, typer.Option(help="How many.")] = 1000,
    mib: Annotated[int, typer.Option(help="Size of the model in MiB.")] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds to measure.")] = 5,
    processes: Annotated[int, typer.Option(help="For the gateways.")] = 4,
    idle_s: Annotated[float, typer.Option(help="How long they only watch.")] = 20.0,
) -> None:
    """Measure and print."""
    with state_folder(Path(), durable=False) as state:
        setting = Setting(mib, gateways, True, state / "federation", min(processes, gateways))
        with Federation(setting) as federation:
            found = measure(federation, rounds, idle_s)
            memory = {
                "orchestrator_peak_rss_mib": round(federation.orchestrator_peak_mib),
                "orchestrator_idle_rss_mib": round(federation.idle_rss_mib),
            }
    whole = {"benchmark": "fanout", "gateways": gateways, "mib": mib, **found.line(), **memory}
    print(json.dumps({**whole, **described()}), flush=True)


if __name__ == "__main__":
    typer.run(main)
