"""kill -9 of random processes at random instants of real runs; prints one line of JSON.

    python -m tests.faults.random_kills --engine sqlite|postgresql --kills N --seed S

Each run has three gateways and, over PostgreSQL, a standby beside the orchestrator: of these two
the one that was started again waits for the other. Every run must end with the model of a run in
which nothing was killed, and with one charge for each round.
"""

from __future__ import annotations

import argparse
import json
import random  # noqa: TID251 - the seed is an argument
import signal
import sys
import tempfile
import time  # noqa: TID251 - real processes run meanwhile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.faults.federation import SITES, Federation, undisturbed_model
from tests.postgresql import Server

MANY_ROUNDS = {"count": 25, "deadline_s": 600.0}  # no round is lost to a deadline
LONGEST_PAUSE_S = 3.0
MOST_IN_A_RUN = 12


@dataclass
class Report:
    """What was done, and what came of it."""

    engine: str
    seed: int
    kills: int = 0
    killed: dict[str, int] = field(default_factory=dict)  # of whom
    runs: int = 0
    mismatches: int = 0  # runs that ended with another model
    double_charges: int = 0  # gateways whose ledger has anything but one charge for each round
    seconds: float = 0.0

    def is_clean(self) -> bool:
        return not self.mismatches and not self.double_charges


def kill_at_random(
    report: Report, kills: int, folder: Path, expected: str, **rounds: float
) -> None:
    """Kill processes until there were `kills`, over as many runs as that takes; keep the report.

    Args:
        report: what it is about, and where it is kept.
        kills: in all.
        folder: for the runs.
        expected: the model of a run in which nothing is killed.
        rounds: of each run, as in a plan.
    """
    generator, began = random.Random(report.seed), time.monotonic()  # noqa: S311
    with ExitStack() as stack:
        server = None
        if report.engine == "postgresql":
            server = Server(fsync=True)
            stack.callback(server.remove)
            server.start()
        while report.kills < kills:
            report.runs += 1
            federation = Federation(folder / f"run-{report.runs}", server, **rounds)
            stack.callback(federation.close)
            _disturb(federation, generator, kills, report)
            _judge(federation, expected, report)
            federation.close()
    report.seconds = round(time.monotonic() - began, 1)


def _disturb(federation: Federation, generator: random.Random, kills: int, report: Report) -> None:
    """Begin a run; kill until it has ended, or has had its share."""
    names = ["orchestrator", *SITES]
    if federation.server is None:
        federation.start_orchestrator()
    else:
        federation.start_orchestrator(None, "--standby")
        federation.start_standby()
        names.append("standby")
    for site in SITES:
        federation.start_gateway(site)
    federation.start_run()
    for _ in range(min(MOST_IN_A_RUN, kills - report.kills)):
        time.sleep(generator.uniform(0.0, LONGEST_PAUSE_S))
        if federation.run_has_ended():
            return
        name = generator.choice(names)
        federation.signal(name, signal.SIGKILL)
        federation.processes[name].wait()
        federation.restart(name)
        report.kills += 1
        report.killed[name] = report.killed.get(name, 0) + 1


def _judge(federation: Federation, expected: str, report: Report) -> None:
    model = federation.finish().model_sha256
    if model != expected:
        report.mismatches += 1
        sys.stderr.write(f"run {report.runs}: model {model}, expected {expected}\n")
    for site in SITES:
        try:
            federation.check_ledger(site)
        except AssertionError as error:
            report.double_charges += 1
            sys.stderr.write(f"run {report.runs}, {site}: {error}\n")


def main() -> int:
    """Return 0 if every run gave the same model and every round was charged once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], required=True)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    asked = parser.parse_args()
    report = Report(asked.engine, asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = undisturbed_model(Federation(folder / "undisturbed", **MANY_ROUNDS))
        kill_at_random(report, asked.kills, folder, expected, **MANY_ROUNDS)
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 0 if report.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main())
