"""Seeds of every day: whole federations under faults, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.faults import Fault
from tests.simulation.seeds import FAILED_ONCE, FIRST
from tests.simulation.summary import JUDGED_FROM, Outcome, Summary

ROOT = Path(__file__).parents[2]
SHARE = 100  # seeds at once: enough of them to tell a rare fault
LATER = sorted(set(FAILED_ONCE) - set(FIRST))
SHARES = [range(first, first + SHARE) for first in range(FIRST.start, FIRST.stop, SHARE)]
SHARES += [range(seed, seed + 1) for seed in LATER]

TRACES = """
import json
from tests.simulation.simulate import simulate
print(json.dumps([simulate(seed).trace for seed in {seeds}]))
"""
ON_SQLALCHEMYS_ENGINE = """
from functools import partial
from sqlalchemy import create_engine, make_url
from tests.simulation import simulate as simulation
from tests.simulation.database import SimulatedConnection

def create(url, **options):
    file = make_url(url).database
    connect = partial(SimulatedConnection, file, check_same_thread=False)
    return create_engine(url, creator=connect, **options)

simulation.create_engine_quickly = create
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
    if len(seeds) >= JUDGED_FROM:
        assert summary["in_fewer_than_one_of_20_seeds"] == []


def traces(*seeds: int, first: str = "") -> list[str]:
    """Simulate seeds in a process of their own, `first` executed there before; what happened."""
    program = first + TRACES.format(seeds=list(seeds))
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-c", program]
    return json.loads(subprocess.check_output(command, cwd=ROOT, env=environment))


@pytest.mark.timeout(300)
def test_a_seed_is_the_same_in_every_process_and_in_any_company():
    first, second, third = traces(1, 2, 3)
    assert traces(3, 1) == [third, first]
    assert traces(2) == [second]
    assert len({first, second, third}) == 3


@pytest.mark.timeout(300)
def test_a_seed_is_the_same_on_sqlalchemys_own_engine():
    assert traces(1, 2, 3, 4, first=ON_SQLALCHEMYS_ENGINE) == traces(1, 2, 3, 4)


def test_a_fault_that_is_too_rare_fails_many_seeds_and_not_a_few():
    every = {kind.name: 1 for kind in Fault}
    rare = {name: count for name, count in every.items() if name != Fault.EIO.name}

    few, many = summary_of(rare, JUDGED_FROM - 1), summary_of(rare, JUDGED_FROM)
    assert (few.rare, few.is_good) == (many.rare, True) == (["EIO"], not many.is_good)
    assert any("EIO" in line and line.endswith("RARE") for line in many.table())

    for seed in range(JUDGED_FROM, JUDGED_FROM + 5):
        many.add(outcome(seed, every))
    assert (many.rare, many.is_good) == (["EIO"], False)  # 5 of 105
    many.add(outcome(JUDGED_FROM + 5, every))
    assert (many.rare, many.is_good) == ([], True)


def summary_of(counts: dict[str, int], seeds: int) -> Summary:
    summary = Summary()
    for seed in range(seeds):
        summary.add(outcome(seed, counts))
    return summary


def outcome(seed: int, counts: dict[str, int]) -> Outcome:
    """A seed in which nothing was violated."""
    return Outcome(seed, (), counts, "RunCompleted", 1, 100.0, 1000, "", ())
