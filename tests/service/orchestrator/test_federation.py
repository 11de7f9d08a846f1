from __future__ import annotations

import asyncio
import hashlib

import numpy as np
import pytest

from common import wire
from common.ids import GatewayId, RunId, WeightsId
from common.plan import Rounds
from common.protocol import Body, Review, RunState, Stop, StopReason, Train, Wait
from common.weights import Weights
from orchestrator.config import Limits
from orchestrator.orchestrator import Orchestrator
from orchestrator.rounds import Phase
from orchestrator.server_optimizer import OptimizerState
from tests.averaging import final_model, server_step
from tests.fakes import (
    INITIAL,
    LAYOUT,
    FakeClock,
    FakeGateway,
    chunks,
    difference,
    plan_of,
)
from tests.signing import order

PLAN = plan_of("a", "b", "c")


def reference(plan=PLAN) -> WeightsId:
    """The model that float64 arithmetic written out gives."""
    weights, state, count = INITIAL.values, OptimizerState(), plan.rounds.count
    gateways = [p.gateway for p in plan.participants]
    total = sum(map(plan.weight, gateways))
    for number in range(1, count + 1):
        terms = [plan.weight(g) / total * difference(g, number).astype("f8") for g in gateways]
        steps = sum(np.rint(term * 2.0**40).astype(np.int64) for term in terms)
        weights, state = server_step(
            weights,
            steps * 2.0**-40,
            state,
            plan.server,
            published_round=number,
            count=count,
        )
    return Weights(LAYOUT, final_model(weights, state, plan.server, count)).digest


@pytest.fixture
def database(database_url):
    return database_url


async def test_a_federation_over_mutual_tls_runs_to_its_model(federation):
    async with federation.serving():
        operator = await federation.start(PLAN)
        gateways = await federation.gateways("a", "b", "c")
        stops = await asyncio.gather(*(g.follow("r") for g in gateways))
        status, plan = await operator.run(RunId("r"))
        model = await operator.fetch_weights(status.model)
    assert {stop.reason for stop in stops} == {StopReason.COMPLETED}
    assert (status.state, status.published_round) == (RunState.COMPLETED, 3)
    assert hashlib.sha256(model).hexdigest() == status.model_sha256
    assert status.model == reference()
    assert plan == wire.plan_to_bytes(PLAN)
    assert [g.rounds_counted for g in status.gateways] == [3, 3, 3]
    assert status.bytes_received == 9 * LAYOUT.byte_length
    assert status.bytes_sent == 9 * LAYOUT.byte_length


async def test_a_gateway_is_told_each_step_once(federation):
    async with federation.serving():
        await federation.start(plan_of("a"))
        (gateway,) = await federation.gateways("a")
        await gateway.follow("r")
    kinds = [type(news.instruction) for news in gateway.seen]
    trained = [n.instruction.round for n in gateway.seen if isinstance(n.instruction, Train)]
    assert (kinds[0], kinds[-1]) == (Review, Stop)
    assert trained == [1, 2, 3]
    assert gateway.seen[-1].published_round == 3
    assert set(kinds) <= {Review, Train, Wait, Stop}


async def test_a_restart_in_mid_round_leads_to_the_same_model(federation):
    async with federation.serving():
        await federation.start(PLAN)
        a, b, c = await federation.gateways("a", "b", "c")
        for gateway in (a, b, c):
            await gateway.accept("r")
        await a.send("r", 1, INITIAL.digest)
        await b.send("r", 1, INITIAL.digest)
    async with federation.serving() as server:
        state = server.orchestrator.runs.get(RunId("r")).run.round
        assert set(state.awaited) == {"a", "b"}
        operator = await federation.operator()
        gateways = await federation.gateways("a", "b", "c")
        await asyncio.gather(*(g.follow("r") for g in gateways))
        status, _ = await operator.run(RunId("r"))
    assert status.model == reference()


async def test_a_restart_before_anything_came_leaves_the_round_its_time(federation):
    async with federation.serving():
        await federation.start(PLAN)
        for gateway in await federation.gateways("a", "b", "c"):
            await gateway.accept("r")
    async with federation.serving() as server:
        live = server.orchestrator.runs.get(RunId("r"))
        await asyncio.sleep(0)  # the run's driver takes its first step
        assert (live.run.opened, live.run.round.phase) == (1, Phase.COLLECTING)
        assert server.orchestrator.runs.remaining_s(live) == 60.0


async def test_a_restart_before_anyone_answered_leaves_the_gathering_its_time(federation):
    plan = plan_of("a", "b", rounds=Rounds(count=1, maximum=1, quorum=1, deadline_s=60.0))
    async with federation.serving():
        await federation.start(plan)
    async with federation.serving() as server:
        (a,) = await federation.gateways("a")
        await a.accept("r")
        live = server.orchestrator.runs.get(RunId("r"))
        assert (live.run.opened, live.run.state) == (0, RunState.GATHERING)


async def test_two_runs_go_on_side_by_side(federation):
    async with federation.serving():
        operator = await federation.start(plan_of("a"), "one")
        await federation.start(plan_of("b"), "two")
        a, b = await federation.gateways("a", "b")
        await asyncio.gather(a.follow("one"), b.follow("two"))
        runs = await operator.list_runs()
    assert [run.run_id for run in runs] == ["two", "one"]
    assert {run.state for run in runs} == {RunState.COMPLETED}


async def test_at_the_deadline_the_round_closes_with_its_quorum(federation):
    plan = plan_of("a", "b", "c", rounds=Rounds(count=1, maximum=1, quorum=2, deadline_s=60.0))
    async with federation.serving():
        operator = await federation.start(plan)
        a, b, c = await federation.gateways("a", "b", "c")
        for gateway in (a, b, c):
            await gateway.accept("r")
        await a.send("r", 1, INITIAL.digest)
        await b.send("r", 1, INITIAL.digest)
        federation.clock.advance(60.0)
        async for _ in operator.watch_run(RunId("r")):
            pass
        status, _ = await operator.run(RunId("r"))
    assert status.state is RunState.COMPLETED
    assert [g.rounds_counted for g in status.gateways] == [1, 1, 0]
    assert [g.rounds_invited for g in status.gateways] == [1, 1, 1]


async def test_a_round_without_quorum_is_opened_again_then_the_run_fails(federation):
    plan = plan_of("a", "b", rounds=Rounds(count=1, maximum=2, quorum=2, deadline_s=60.0))
    async with federation.serving() as server:
        operator = await federation.start(plan)
        a, b = await federation.gateways("a", "b")
        await a.accept("r")
        await b.accept("r")
        live = server.orchestrator.runs.get(RunId("r"))
        await a.send("r", 1, INITIAL.digest)
        while not live.run.has_ended:
            rung = live.changed.next
            federation.clock.advance(60.0)
            await rung.wait()
        status, _ = await operator.run(RunId("r"))
    assert (status.state, status.opened_rounds) == (RunState.FAILED, 2)
    assert "rounds.maximum = 2 rounds were opened" in status.reason


class Crash(Exception):
    """The process died here."""


class StoppingClock(FakeClock):
    """Dies the n-th time that something is about to be recorded."""

    def __init__(self, records: int) -> None:
        super().__init__()
        self.records = records

    def wall(self):
        self.records -= 1
        if self.records == 0:
            raise Crash
        return super().wall()


async def run_in_process(folder, clock) -> Orchestrator:
    """Run a federation without a socket until it ends or the orchestrator dies."""
    url = f"sqlite:///{folder / 'journal.db'}"
    orchestrator = Orchestrator(folder, url, federation="acme", clock=clock, limits=Limits())
    data = INITIAL.to_bytes()
    try:
        orchestrator.start(restart_grace_s=5.0)
        await orchestrator.operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data))
        await orchestrator.operations.start_run(*order("r", PLAN))
        gateways = [FakeGateway(n, orchestrator.seen_by(GatewayId(n))) for n in "abc"]
        ends = [asyncio.create_task(g.follow("r")) for g in gateways]
        halted = asyncio.create_task(orchestrator.runs.halted.wait())
        await asyncio.wait([asyncio.gather(*ends), halted], return_when=asyncio.FIRST_COMPLETED)
        for task in (*ends, halted):
            task.cancel()
        await asyncio.gather(*ends, halted, return_exceptions=True)
    except Crash:
        pass
    await orchestrator.close()
    return orchestrator


async def test_a_federation_runs_without_a_socket(tmp_path):
    orchestrator = await run_in_process(tmp_path, FakeClock())
    (status,) = await orchestrator.operations.list_runs()
    assert (status.state, status.model) == (RunState.COMPLETED, reference())


@pytest.mark.parametrize("record", range(1, 22))  # all that a run records
async def test_a_crash_at_any_record_leads_to_the_same_model(tmp_path, record):
    clock = StoppingClock(record)
    await run_in_process(tmp_path, clock)
    assert clock.records <= 0  # it did crash
    orchestrator = await run_in_process(tmp_path, FakeClock())
    (status,) = await orchestrator.operations.list_runs()
    assert (status.state, status.model) == (RunState.COMPLETED, reference())
