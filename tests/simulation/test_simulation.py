"""Seeds of every day: whole federations under faults, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.seeds import FAILED_ONCE, FIRST

ROOT = Path(__file__).parents[2]
SHARE = 50  # seeds at once
LATER = sorted(set(FAILED_ONCE) - set(FIRST))
SHARES = [range(first, first + SHARE) for first in range(FIRST.start, FIRST.stop, SHARE)]
SHARES += [range(seed, seed + 1) for seed in LATER]

TRACES = """
import json
from tests.simulation.simulate import simulate
print(json.dumps([simulate(seed).trace for seed in {seeds}]))
"""


def simulated(seeds: range) -> tuple[int, dict, str]:
    """Simulate seeds; return the exit code, the summary and what was said of failures."""
    wanted = f"{seeds.start}:{seeds.stop}"
    command = [sys.executable, "-m", "tests.simulation", wanted, "--processes", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = json.loads(done.stdout.splitlines()[-1]) if done.stdout else {}
    return done.returncode, summary, done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", SHARES, ids=lambda seeds: f"{seeds.start}:{seeds.stop}")
def test_no_fault_breaks_an_invariant(seeds):
    code, summary, said = simulated(seeds)
    assert code == 0, said[-8000:]
    assert (summary["seeds"], summary["failed"]) == (len(seeds), [])


@pytest.mark.timeout(300)
def test_a_seed_is_the_same_in_every_process_and_in_any_company():
    def traces(*seeds: int) -> list[str]:
        program = TRACES.format(seeds=list(seeds))
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-c", program]
        return json.loads(subprocess.check_output(command, cwd=ROOT, env=environment))

    first, second, third = traces(1, 2, 3)
    assert traces(3, 1) == [third, first]
    assert traces(2) == [second]
    assert len({first, second, third}) == 3
