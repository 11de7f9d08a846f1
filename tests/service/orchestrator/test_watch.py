from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace

import pytest

from common.errors import ConflictError, FederationError, RequestError, UnavailableError
from common.ids import RunId
from common.plan import Rounds
from common.protocol import (
    Decline,
    Refusal,
    RefusalReason,
    Review,
    RunState,
    Stop,
    StopReason,
    Train,
    UpdateKey,
    Versions,
    Wait,
    WaitReason,
)
from orchestrator.sessions import ShuttingDown
from tests.fakes import INITIAL, VERSIONS, plan_of, until

PLAN = plan_of("a", "b", rounds=Rounds(count=2, maximum=2, quorum=1, deadline_s=60.0))


@pytest.fixture
async def started(federation):
    async with federation.serving() as server:
        federation.orchestrator = server.orchestrator
        federation.olga = await federation.start(PLAN)
        federation.a, federation.b = await federation.gateways("a", "b")
        yield federation


async def watching(gateway, *kept: str, versions: Versions = VERSIONS):
    lease = (await gateway.client.register(versions)).lease
    return aclosing(gateway.client.watch(lease, [RunId(run) for run in kept]))


async def test_a_stream_begins_with_the_current_state_after_every_reconnect(started):
    async with await watching(started.a) as stream:
        assert isinstance((await anext(stream)).instruction, Review)
    await started.a.accept("r")
    await started.b.accept("r")
    async with await watching(started.a) as stream:
        news = await anext(stream)
    assert isinstance(news.instruction, Train)
    assert news.instruction.weights.digest == INITIAL.digest
    assert news.instruction.remaining_s == 60.0


async def test_who_is_done_waits_for_the_others(started):
    await started.a.accept("r")
    await started.b.accept("r")
    await started.a.send("r", 1, INITIAL.digest)
    async with await watching(started.a) as stream:
        assert (await anext(stream)).instruction == Wait(WaitReason.OTHERS)
        await started.b.send("r", 1, INITIAL.digest)
        while not isinstance((news := await anext(stream)).instruction, Train):
            pass
    assert (news.instruction.round, news.published_round) == (2, 1)


async def test_a_newer_process_ends_the_stream_of_the_older(started):
    async with await watching(started.a) as older:
        await anext(older)
        await started.a.client.register(VERSIONS)
        last = [news async for news in older][-1]
    assert last.run_id == ""
    assert last.instruction == Stop(StopReason.SUPERSEDED)


async def test_a_second_stream_of_one_process_ends_the_first(started):
    lease = (await started.a.client.register(VERSIONS)).lease
    async with (
        aclosing(started.a.client.watch(lease, [])) as first,
        aclosing(started.a.client.watch(lease, [])) as second,
    ):
        await anext(first)
        await anext(second)
        assert [news async for news in first] == []
        status = await until(started.olga, lambda _: True)
        assert [g.connected for g in status.gateways] == [True, False]


async def test_an_old_lease_asks_to_register_again(started):
    with pytest.raises(UnavailableError, match="call Register again"):  # so it is tried again
        await anext(aiter(started.a.client.watch("0" * 32, [])))


async def test_runs_that_a_gateway_keeps_updates_of_are_answered(started):
    await started.olga.cancel_run(RunId("r"))
    async with await watching(started.a, "r", "gone") as stream:
        said = {news.run_id: news.instruction for news in [await anext(stream) for _ in range(2)]}
    assert said == {
        "r": Stop(StopReason.CANCELLED),
        "gone": Stop(StopReason.UNKNOWN_RUN),
    }


async def test_a_run_is_unknown_to_those_who_do_not_take_part(started):
    (stranger,) = await started.gateways("stranger")
    async with await watching(stranger, "r") as stream:
        assert (await anext(stream)).instruction == Stop(StopReason.UNKNOWN_RUN)


async def test_streams_end_when_the_orchestrator_shuts_down(started):
    registration = started.orchestrator.sessions.register("c", VERSIONS)
    stream = started.orchestrator.sessions.watch("c", registration.lease, ["gone"])
    await anext(stream)
    started.orchestrator.sessions.close()
    with pytest.raises(ShuttingDown):
        await anext(stream)


async def test_a_client_sees_a_shutdown_as_something_to_try_again(federation):
    async with federation.serving():
        await federation.start(PLAN)
        (a,) = await federation.gateways("a")
        stream = await watching(a)
        news = await stream.__aenter__()
        await anext(news)
    with pytest.raises(UnavailableError):
        await anext(news)


async def test_other_protocols_are_refused_with_both_versions(started):
    with pytest.raises(RequestError, match=r"protocol 9 \(software 2\.0\).*orchestrator 1"):
        await started.a.client.register(Versions(9, "2.0"))


async def test_a_plan_is_accepted_only_with_its_task(started):
    await started.a.client.register(Versions(1, "0.1.0", {"toy": "3" * 64}))
    with pytest.raises(RequestError, match="needs task 'toy' of digest 7777"):
        await started.a.accept("r")


async def test_too_many_refusals_fail_the_run(started):
    config = await started.a.client.get_config(RunId("r"))
    no = Refusal(RefusalReason.EPSILON_BUDGET, "privacy.target_epsilon")
    for gateway in (started.a, started.b):
        await gateway.client.accept_plan(RunId("r"), config.plan_digest, no)
        await gateway.client.accept_plan(RunId("r"), config.plan_digest, no)
    status, _ = await started.olga.run(RunId("r"))
    assert status.state is RunState.FAILED
    assert [g.answer for g in status.gateways] == [no, no]


async def test_what_a_gateway_has_accepted_stays_and_is_recorded_once(started):
    config = await started.a.client.get_config(RunId("r"))
    live = started.orchestrator.runs.get(RunId("r"))
    await started.a.accept("r")
    recorded = live.recorded
    await started.a.accept("r")
    no = Refusal(RefusalReason.EPSILON_BUDGET, "privacy.target_epsilon")
    changed = replace(started.a.effective, insecure_deterministic=True)
    for answer, why in ((no, "decline its rounds"), (changed, "fixed for this run")):
        with pytest.raises(ConflictError, match=why):
            await started.a.client.accept_plan(RunId("r"), config.plan_digest, answer)
    assert live.recorded == recorded
    status, _ = await started.olga.run(RunId("r"))
    assert status.gateways[0].answer == started.a.effective


async def test_a_gateway_that_accepts_late_joins_the_next_round(started):
    await started.a.accept("r")
    started.clock.advance(60.0)
    await until(started.olga, lambda s: s.round == 1)
    await started.b.accept("r")
    with pytest.raises(FederationError, match="not invited to round 1"):
        await started.b.client.decline(
            Decline(UpdateKey(RunId("r"), 1), Refusal(RefusalReason.FAILED))
        )
    await started.a.send("r", 1, INITIAL.digest)
    status = await until(started.olga, lambda s: s.round == 2)
    assert [g.rounds_invited for g in status.gateways] == [2, 1]
