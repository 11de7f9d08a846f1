"""`python -m tests.simulation FIRST:END`: runs seeds, counts faults, shows what fails."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

REPEAT = "PYTHONHASHSEED"  # sets of strings have one order in every process


def main() -> int:
    """Return 0 if no seed has violated an invariant and no fault was too rare."""
    if os.environ.get(REPEAT) != "0":
        os.execve(  # noqa: S606  # ourselves
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, REPEAT: "0", "OMP_NUM_THREADS": "1"},
        )
    from tests.simulation.summary import JUDGED_FROM, Summary  # noqa: PLC0415  # now that they repeat

    options, began = _options(), time.monotonic()
    summary = Summary()
    for outcome in outcomes(options.seeds, options.processes, options.tail):
        summary.add(outcome)
        if outcome.violations:
            _say(*outcome.tail)
            _say(f"seed {outcome.seed}: {len(outcome.violations)} violations")
            _say(*(f"    {violation}" for violation in outcome.violations[:8]))
            _say(f"repeat it: make simulate SEEDS={outcome.seed}:{outcome.seed + 1}")
        if not summary.seeds % 100:
            seconds = time.monotonic() - began
            _say(f"{summary.seeds} seeds, {seconds:.0f} s, {len(summary.failed)} failed")
    if summary.seeds >= JUDGED_FROM:
        _say(*summary.table())
    print(json.dumps(summary.line(time.monotonic() - began)))  # noqa: T201
    return 0 if summary.is_good else 1


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
