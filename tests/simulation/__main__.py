"""`python -m tests.simulation FIRST:END`: runs seeds, counts faults, shows what fails."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

REPEAT = "PYTHONHASHSEED"  # sets of strings have one order in every process


def main() -> int:
    """Return 0 if no seed has violated an invariant."""
    if os.environ.get(REPEAT) != "0":
        os.execve(  # noqa: S606  # ourselves
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, REPEAT: "0", "OMP_NUM_THREADS": "1"},
        )
    options = _options()
    began = time.monotonic()
    summary, failed = Summary(), []
    for outcome in outcomes(options.seeds, options.processes, options.tail):
        summary.add(outcome)
        if outcome.violations:
            failed.append(outcome.seed)
            _say(*outcome.tail)
            _say(f"seed {outcome.seed}: {len(outcome.violations)} violations")
            _say(*(f"    {violation}" for violation in outcome.violations[:8]))
            _say(f"repeat it: make simulate SEEDS={outcome.seed}:{outcome.seed + 1}")
        if not summary.seeds % 100:
            _say(f"{summary.seeds} seeds, {time.monotonic() - began:.0f} s, {len(failed)} failed")
    line = summary.line(time.monotonic() - began, failed)
    print(json.dumps(line))  # noqa: T201
    return 1 if failed else 0


def outcomes(seeds: range, processes: int, tail: int = 60) -> Iterator:
    """Yield what each seed comes to, in whatever order they end."""
    from tests.simulation.simulate import simulate  # noqa: PLC0415  # after the new beginning

    jobs = [(seed, tail) for seed in seeds]
    if processes == 1:
        yield from (simulate(seed, tail=tail) for seed in seeds)
        return
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        yield from pool.imap_unordered(_simulate, jobs, chunksize=4)


def _simulate(job: tuple[int, int]):
    from tests.simulation.simulate import simulate  # noqa: PLC0415

    return simulate(job[0], tail=job[1])


class Summary:
    """What all seeds came to together."""

    def __init__(self) -> None:
        self.seeds = 0
        self.simulated_s = 0.0
        self.faults: Counter[str] = Counter()
        self.seeds_with: Counter[str] = Counter()

    def add(self, outcome) -> None:
        self.seeds += 1
        self.simulated_s += outcome.seconds
        self.faults.update(outcome.counts)
        self.seeds_with.update(outcome.counts.keys())

    def line(self, seconds: float, failed: list[int]) -> dict[str, object]:
        from tests.simulation.faults import Fault  # noqa: PLC0415

        rare = [k.name for k in Fault if 20 * self.seeds_with[k.name] < self.seeds]
        return {
            "seeds": self.seeds,
            "failed": sorted(failed),
            "seconds": round(seconds, 1),
            "simulated_hours": round(self.simulated_s / 3600, 1),
            "faults": {kind.name: self.faults[kind.name] for kind in Fault},
            "in_fewer_than_one_of_20_seeds": rare,
        }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", type=_range, help="FIRST:END, END not included")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--tail", type=int, default=60, help="lines of a failed seed's history")
    return parser.parse_args()


def _range(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end or int(first) + 1))


def _say(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
