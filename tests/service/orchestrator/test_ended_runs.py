"""Runs that have ended: they leave memory, and what is asked of them is answered as before."""

from __future__ import annotations

import gc
import weakref
from contextlib import aclosing

import pytest
from sqlalchemy import event

from common import wire
from common.errors import NotFound
from common.ids import GatewayId, RunId
from common.protocol import Body, RunState, ScoreSet, Stop, StopReason
from orchestrator.admission import NotInvited, RunEnded, UnknownRun
from orchestrator.config import Limits
from orchestrator.events import RunCancelled, RunStarted, ScoresRecorded
from orchestrator.fencing import Fence
from orchestrator.journal import Journal
from orchestrator.live_runs import KEPT_ENDED, LiveRuns
from orchestrator.operations import RunExists
from orchestrator.orchestrator import Orchestrator
from tests.fakes import EFFECTIVE, INITIAL, VERSIONS, FakeClock, chunks, plan_of
from tests.on_record import record_of
from tests.signing import order

PLAN = plan_of("a", "b")
PLAN_BYTES = wire.plan_to_bytes(PLAN)
PLAN_ID = wire.plan_id(PLAN_BYTES)
NAMES = tuple(RunId(f"run-{number}") for number in range(KEPT_ENDED + 4))
SCORES = ScoreSet(0, "dev", INITIAL.digest, f1=0.5, precision=0.25, recall=1.0, support=7)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def journal(engine, clock):
    return Journal(Fence(engine), clock)


@pytest.fixture
def runs(journal, clock):
    """More runs have ended than are kept in memory, the oldest first."""
    runs = LiveRuns(journal, record_of(journal), clock)
    for name in NAMES:
        clock.advance(1.0)
        runs.record(runs.create(name, PLAN, PLAN_BYTES, PLAN_ID), RunCancelled())
    return runs


def names(live) -> list[RunId]:
    return [each.run.run_id for each in live]


def test_only_those_that_ended_last_stay_in_memory(journal, clock):
    runs, seen = LiveRuns(journal, record_of(journal), clock), []
    for name in NAMES:
        live = runs.create(name, PLAN, PLAN_BYTES, PLAN_ID)
        runs.record(live, RunCancelled())
        seen.append(weakref.ref(live))
    del live
    gc.collect()
    assert [each() is not None for each in seen] == [False] * 4 + [True] * KEPT_ENDED
    assert names(runs.at_hand()) == list(NAMES[4:])
    assert runs.going_on() == ()


def test_one_that_ended_long_ago_is_as_the_journal_has_it(runs):
    live = runs.get(NAMES[0])
    assert (live.run.state, live.plan_bytes, live.recorded) == (RunState.CANCELLED, PLAN_BYTES, 2)
    assert names(runs.at_hand()) == [*NAMES[5:], NAMES[0]]


def test_for_whoever_has_no_part_in_it_no_event_of_an_old_run_is_read(runs, journal, monkeypatch):
    """A run of a thousand gateways has many, and a gateway may ask for all old runs in turn."""
    read = []
    monkeypatch.setattr(journal, "events", lambda run_id, **_: read.append(run_id) or ())
    with pytest.raises(NotInvited, match="run 'run-0'"):
        runs.get_for(GatewayId("mallory"), NAMES[0])
    with pytest.raises(NotInvited, match=f"run '{NAMES[-1]}'"):
        runs.get_for(GatewayId("mallory"), NAMES[-1])
    with pytest.raises(UnknownRun):
        runs.get_for(GatewayId("mallory"), RunId("none"))
    assert read == []


def test_who_has_a_part_in_an_old_run_is_shown_it(runs):
    assert runs.get_for(GatewayId("a"), NAMES[0]).run.state is RunState.CANCELLED


def test_scores_of_one_that_ended_long_ago_are_recorded(runs):
    runs.record(runs.get(NAMES[0]), ScoresRecorded(SCORES))
    for name in NAMES[1:]:
        runs.get(name)
    assert NAMES[0] not in names(runs.at_hand())
    assert runs.get(NAMES[0]).run.scores == (SCORES,)


def test_a_start_folds_only_runs_that_go_on(runs, journal, clock):
    runs.create(RunId("on"), PLAN, PLAN_BYTES, PLAN_ID)
    again = LiveRuns(journal, record_of(journal), clock)
    again.resume(7.0)
    assert names(again.at_hand()) == ["on"]
    assert again.get(NAMES[0]).run.state is RunState.CANCELLED


def test_a_run_that_goes_on_and_is_not_driven_here_is_unknown(runs, journal):
    journal.create_run(RunId("r"), PLAN_BYTES, PLAN_ID, RunStarted(5.0))
    with pytest.raises(UnknownRun):
        runs.get(RunId("r"))
    assert names(runs.going_on()) == []


@pytest.fixture
async def orchestrator(tmp_path, clock):
    """As many runs have ended, and one that began before most of them goes on."""
    url, data = f"sqlite:///{tmp_path / 'journal.db'}", INITIAL.to_bytes()
    made = Orchestrator(tmp_path, url, federation="acme", clock=clock, limits=Limits())
    made.start(restart_grace_s=5.0)
    await made.operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data))
    for name in (NAMES[0], RunId("on"), *NAMES[1:]):
        clock.advance(1.0)
        await made.operations.start_run(*order(name, PLAN_BYTES))
        if name != "on":
            made.operations.cancel_run(name)
    yield made
    await made.close()


async def test_every_run_is_listed_the_newest_first(orchestrator):
    listed = await orchestrator.operations.list_runs()
    assert [status.run_id for status in listed] == [*NAMES[:0:-1], "on", NAMES[0]]
    states = {status.run_id: status.state for status in listed}
    assert states.pop(RunId("on")) is RunState.GATHERING
    assert set(states.values()) == {RunState.CANCELLED}


async def test_the_name_of_one_that_ended_long_ago_stays_taken(orchestrator):
    assert await orchestrator.operations.start_run(*order(NAMES[0], PLAN_BYTES)) == PLAN_ID
    with pytest.raises(RunExists):
        await orchestrator.operations.start_run(*order(NAMES[0], plan_of("a")))
    assert orchestrator.operations.cancel_run(NAMES[0]).state is RunState.CANCELLED
    assert names(orchestrator.runs.going_on()) == ["on"]


async def test_no_round_is_answered_for_one_that_ended_long_ago(orchestrator):
    accepted = orchestrator.get_config(GatewayId("a"), NAMES[0])
    assert accepted.plan_digest == PLAN_ID
    with pytest.raises(NotFound, match="never"):
        orchestrator.get_config(GatewayId("a"), RunId("never"))
    with pytest.raises(RunEnded):
        await orchestrator.seen_by(GatewayId("a")).accept_plan(NAMES[0], PLAN_ID, EFFECTIVE)


async def test_a_stream_asks_nothing_more_of_runs_that_it_has_told_the_end_of(orchestrator):
    client, asked = orchestrator.seen_by(GatewayId("a")), []
    registration = await client.register(VERSIONS)
    async with aclosing(client.watch(registration.lease, NAMES)) as stream:
        said = [await anext(stream) for _ in range(len(NAMES) + 1)]
        event.listen(
            orchestrator._engine,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: asked.append(statement),
        )
        orchestrator.operations.cancel_run(RunId("on"))
        last = await anext(stream)
    assert {news.run_id for news in said} == {*NAMES, "on"}
    assert (last.run_id, last.instruction) == ("on", Stop(StopReason.CANCELLED))
    assert not [statement for statement in asked if "FROM runs" in statement]
