"""What once found something finds nothing more, and neither do new examples."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, given, settings

from common.errors import RequestError
from tests.fuzz.examples import inputs
from tests.fuzz.messages import CHECKS, methods
from tests.fuzz.target import LONGEST_S, Target, TooLong
from tests.fuzz.targets import TARGETS, named

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))  # of each target
MORE_MIB = 256  # that all examples of a target together may take
every_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@pytest.mark.timeout(180)  # what is loaded at the first use takes its time on a busy machine
@every_target
def test_what_once_found_something_finds_nothing(target):
    with suppress(RequestError):
        target.run(target.seeds[0])  # what is loaded at the first use is loaded
    for data in (*target.seeds, *target.found()):
        target.check(data)


@pytest.mark.timeout(180)  # what is loaded at the first use takes its time on a busy machine
@every_target
def test_no_input_brings_another_error_than_ours_or_takes_long(target):
    with suppress(RequestError):
        target.run(target.seeds[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(inputs(target))
    def tried(data: bytes) -> None:
        target.check(data)

    tried()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MORE_MIB << 10


def test_every_message_of_every_method_is_a_target():
    named_in_methods = {kind.name for _, *kinds in methods() for kind in kinds}
    assert named_in_methods == set(CHECKS)


def test_an_error_that_is_not_ours_is_found():
    broken = Target("broken", lambda data: data[0], (b"x",))
    with pytest.raises(IndexError):
        broken.check(b"")


def test_an_input_that_takes_long_is_found(monkeypatch):
    monkeypatch.setattr("tests.fuzz.target.LONGEST_S", LONGEST_S / 1000)
    slow = Target("slow", lambda _: sum(range(1_000_000)), (b"x",))
    with pytest.raises(TooLong):
        slow.check(b"")


def test_each_target_takes_one_of_its_seeds():
    """A target whose seeds are all refused would try no more than the first check."""
    refused = []
    for target in TARGETS:
        taken = 0
        for seed in target.seeds:
            with suppress(RequestError):
                target.run(seed)
                taken += 1
        if not taken:
            refused.append(target.name)
    assert refused == []


def test_the_same_name_is_not_given_twice():
    assert all(named(target.name).run is target.run for target in TARGETS)


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_atheris_finds_what_examples_would_not():
    run = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seconds", "2", "identity"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert '"target": "identity"' in run.stdout
