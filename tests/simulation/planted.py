"""`python -m tests.simulation.planted`: shows after how many seeds each planted bug is found."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys

LIMIT = 2000  # seeds
AT_ONCE = 2  # processes


def seeds_until_found(place: int) -> tuple[str, int, str]:
    """Plant one bug in this process; return after how many seeds what was violated, 0: none."""
    from tests.simulation.bugs import BUGS  # noqa: PLC0415  # once hashing repeats itself
    from tests.simulation.simulate import simulate  # noqa: PLC0415

    bug = BUGS[place]
    bug.plant()
    for seed in range(LIMIT):
        outcome = simulate(seed, tail=0)
        if outcome.violations:
            return bug.name, seed + 1, outcome.violations[0]
    return bug.name, 0, ""


def main() -> int:
    """Return 0 if every bug was found within LIMIT seeds."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        command = [sys.executable, "-m", "tests.simulation.planted", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606
    from tests.simulation.bugs import BUGS  # noqa: PLC0415

    wanted = sys.argv[1:]
    places = [p for p, bug in enumerate(BUGS) if not wanted or any(w in bug.name for w in wanted)]
    found = {}
    with multiprocessing.get_context("fork").Pool(AT_ONCE, maxtasksperchild=1) as pool:
        for name, seeds, why in pool.imap_unordered(seeds_until_found, places, chunksize=1):
            found[name] = seeds
            verdict = f"{seeds:5} seeds" if seeds else "     MISSED"
            print(f"{verdict}  {name}: {why:.140}", flush=True)  # noqa: T201
    print(json.dumps({"bugs": len(found), "missed": [n for n, s in found.items() if not s]}))  # noqa: T201
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
