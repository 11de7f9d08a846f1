from __future__ import annotations

from functools import reduce

import pytest
from prometheus_client import CollectorRegistry

from common.plan import Rounds
from orchestrator.auditing import Step
from orchestrator.events import (
    DeadlinePassed,
    PlanAccepted,
    Restarted,
    RoundOpened,
    RoundPublished,
    RunCancelled,
    RunStarted,
    UpdateAccepted,
    UpdateLost,
    UpdateSetAside,
)
from orchestrator.run_metrics import RunMetrics
from orchestrator.runs import advance_run, begin
from tests.fakes import EFFECTIVE, INITIAL, FakeClock, plan_of

PLAN = plan_of("a", "b", rounds=Rounds(count=2, maximum=4, quorum=1, deadline_s=60.0))
BEGUN = (RunStarted(60.0), *(PlanAccepted(each, EFFECTIVE, 1.0) for each in "ab"))
OPENED = RoundOpened(1, 1, INITIAL.digest, ("a", "b"), 1, 60.0)
A, B = (UpdateAccepted(each, each * 64, 1.0) for each in "ab")
PUBLISHED = RoundPublished("4" * 64, None, ("a", "b"))


class Told:
    """What the metrics come to after events that took a second each."""

    def __init__(self) -> None:
        self.registry, self.clock = CollectorRegistry(), FakeClock()
        self.metrics = RunMetrics(self.registry, self.clock)
        self.run = reduce(advance_run, BEGUN, begin("r", PLAN, "2" * 64))

    def of(self, *events) -> Told:
        for event in events:
            self.clock.advance(1.0)
            after = advance_run(self.run, event)
            self.metrics.see(Step(self.run, event, after))
            self.run = after
        return self

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"fedgate_{name}", labels)


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_phase_lasts_from_its_first_event_to_its_last(told):
    told.of(OPENED, A, B, PUBLISHED)
    assert told("round_phase_seconds_sum", phase="collecting") == 2.0
    assert told("round_phase_seconds_sum", phase="aggregating") == 1.0


def test_a_phase_that_a_restart_cuts_short_is_not_measured(told):
    told.of(OPENED, A, Restarted(60.0), A, B)
    assert told("round_phase_seconds_count", phase="collecting") == 1
    assert told("round_phase_seconds_sum", phase="collecting") == 2.0


def test_a_round_that_was_open_at_the_start_is_measured_from_there(told):
    told.run = reduce(advance_run, [OPENED, A], told.run)  # by a process before
    told.of(Restarted(60.0), A, B)
    assert told("round_phase_seconds_sum", phase="collecting") == 2.0


def test_an_update_that_was_lost_is_counted(told):
    told.of(OPENED, A, Restarted(60.0), UpdateLost("a"))
    assert told("updates_lost_total") == 1


def test_an_update_of_a_gateway_in_quarantine_is_set_aside_and_not_counted(told):
    quarantined = RoundOpened(1, 1, INITIAL.digest, ("a", "b"), 1, 60.0, quarantined=("b",))
    told.of(quarantined, UpdateSetAside("b", "b" * 64, 1.0))
    assert told("updates_set_aside_total") == 1
    assert told("updates_counted_total") == 0


def test_a_round_without_its_quorum_is_abandoned(told):
    told.of(OPENED, DeadlinePassed())
    assert told("rounds_ended_total", outcome="abandoned") == 1
    assert told("round_phase_seconds_count", phase="collecting") == 1


def test_a_run_that_is_cancelled_ends_with_its_round(told):
    told.of(OPENED, RunCancelled())
    assert told("runs_ended_total", outcome="cancelled") == 1
    assert told("rounds_ended_total", outcome="abandoned") == 0


def test_every_outcome_is_there_from_the_start(told):
    assert told("rounds_ended_total", outcome="abandoned") == 0
    assert told("updates_refused_total", reason="copy") == 0
    assert told("runs_ended_total", outcome="failed") == 0
