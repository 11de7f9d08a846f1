from __future__ import annotations

from functools import reduce

import pytest

from common.plan import Rounds
from common.protocol import (
    Body,
    Refusal,
    RefusalReason,
    Review,
    Stop,
    StopReason,
    Train,
    Wait,
    WaitReason,
)
from common.trace_context import ids_in, traceparent_of
from orchestrator.events import (
    DeadlinePassed,
    PlanAccepted,
    PlanRefused,
    Restarted,
    RoundOpened,
    RunCancelled,
    RunFailed,
    RunStarted,
    UpdateAccepted,
)
from orchestrator.news import news_for, unknown_run
from orchestrator.runs import advance_run, begin
from tests.fakes import EFFECTIVE, INITIAL, plan_of

PLAN = plan_of("a", "b", rounds=Rounds(count=2, maximum=3, quorum=2, deadline_s=60.0))
DIGEST = "2" * 64
YES, NO = PlanAccepted("a", EFFECTIVE, 1.0), PlanRefused("a", Refusal(RefusalReason.DELTA), 1.0)
OPENED = RoundOpened(1, 1, INITIAL.digest, ("a", "b"), 2, 60.0)
AGAIN = RoundOpened(1, 2, INITIAL.digest, ("a", "b"), 2, 60.0)
SENT = UpdateAccepted("a", "4" * 64, 1.0)
TRAIN = Train(1, Body(INITIAL.digest, 99), 8.0, traceparent_of("r", DIGEST, 1, 1))


def news(*events):
    run = reduce(advance_run, [RunStarted(60.0), *events], begin("r", PLAN, DIGEST))
    return news_for(run, "a", byte_length=99, remaining_s=8.0)


@pytest.mark.parametrize(
    ("events", "instruction"),
    [
        ([], Review(DIGEST)),
        ([NO], Review(DIGEST)),
        ([YES], Wait(WaitReason.NO_ROUND)),
        ([YES, OPENED], TRAIN),
        ([YES, OPENED, SENT], Wait(WaitReason.OTHERS)),
        ([YES, OPENED, SENT, Restarted(5.0)], TRAIN),
        ([YES, OPENED, DeadlinePassed()], Wait(WaitReason.NO_ROUND)),
        ([YES, OPENED, RunCancelled()], Stop(StopReason.CANCELLED)),
        ([RunFailed("why")], Stop(StopReason.FAILED)),
    ],
)
def test_each_state_says_what_to_do(events, instruction):
    assert news(*events).said.instruction == instruction


def test_a_round_that_is_opened_again_is_news():
    first, second = news(YES, OPENED), news(YES, OPENED, DeadlinePassed(), AGAIN)
    assert (first.said.run_id, first.said.instruction.round) == ("r", 1)
    assert first.of != second.of


def test_a_round_has_one_trace_and_each_attempt_at_it_a_span():
    first, second = news(YES, OPENED), news(YES, OPENED, DeadlinePassed(), AGAIN)
    (trace, span), (same, another) = (
        ids_in(each.said.instruction.traceparent) for each in (first, second)
    )
    assert trace == same
    assert span != another


def test_a_restart_does_not_change_a_rounds_trace():
    assert news(YES, OPENED, Restarted(5.0)).said.instruction == news(YES, OPENED).said.instruction


def test_the_passing_of_time_is_no_news():
    assert news(YES, OPENED).of == news(YES, OPENED).of


def test_an_unknown_run_is_stopped():
    assert unknown_run("gone").said.instruction == Stop(StopReason.UNKNOWN_RUN)
