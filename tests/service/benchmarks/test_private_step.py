"""The benchmark of private steps, on the least that it can measure."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.machine import ROOT
from benchmarks.private_step.measure import Timed, take_turns
from benchmarks.private_step.models import sentences
from benchmarks.private_step.noise import noise_costs

pytestmark = pytest.mark.timeout(180)  # four processes, each of which loads torch

LEAST = ["--models", "cnn", "--batch", "2", "--methods", "non_private,fedgate"]
FIGURES = {"ms_min", "ms_median", "ratio_nonprivate", "peak_mib", "max_abs_error"}
NAMED = {"benchmark", "model", "batch", "method", "threads"}
WHERE = {"commit", "cores", "processor", "python"}


@pytest.fixture(scope="module")
def lines() -> list[dict]:
    command = [sys.executable, "-m", "benchmarks.private_step", *LEAST]
    found = subprocess.run(
        [*command, "--seconds", "0.05", "--threads", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_each_method_has_a_line_with_its_figures(lines):
    assert [line["method"] for line in lines] == ["non_private", "fedgate"]
    for line in lines:
        assert set(line) >= NAMED | FIGURES | WHERE
        assert line["ms_median"] >= line["ms_min"] > 0
        assert line["peak_mib"] > 100
    assert lines[0]["ratio_nonprivate"] == 1.0


def test_the_clipped_sum_of_fedgate_is_the_one_of_float64(lines):
    assert lines[1]["max_abs_error"] <= 1e-6
    assert 0 <= lines[1]["norm_raised_by"] < 0.01


class Counted:
    """A method that counts its steps, each of which takes as much work as told."""

    note = None

    def __init__(self, work: int = 0) -> None:
        self.steps = 0
        self.work = torch.ones(work)

    def step(self, _batch) -> None:
        self.steps += 1
        self.work.exp().sum()

    def clipped_sum(self, _batch) -> None:
        return None


def test_every_method_steps_often_enough_however_short_the_time():
    timed = [Timed(Counted()) for _ in range(3)]
    take_turns(timed, sentences(1), 0.0)
    assert all(len(each.took) >= each.least for each in timed)
    assert all(each.method.steps == len(each.took) + 2 for each in timed)  # two warm up


def test_a_slow_method_does_not_starve_the_others():
    timed = [Timed(Counted()), Timed(Counted(20_000_000))]
    take_turns(timed, sentences(1), 0.0)
    quick, slow = timed
    assert len(slow.took) == slow.least
    assert len(quick.took) > 5 * len(slow.took)


def test_noise_is_measured_beside_the_generator_of_torch_and_the_system():
    found = noise_costs(1, parameters=10_000)
    assert [line["method"] for line in found] == ["fedgate", "torch_normal", "os_urandom"]
    assert all(line["ns_per_parameter"] > 0 for line in found)
