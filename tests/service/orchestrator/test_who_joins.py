"""Who joins a round and how long it waits: targets, deadlines, the late, the slow, the gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest

from common.errors import ConflictError
from common.ids import RunId
from common.plan import Rounds
from common.protocol import (
    Decline,
    Refusal,
    RefusalReason,
    RunNews,
    RunState,
    RunStatus,
    Train,
    UpdateKey,
)
from orchestrator.runs import Hold
from tests.fakes import INITIAL, VERSIONS, FakeGateway, plan_of, until

RUN = RunId("r")
Words: TypeAlias = "asyncio.Queue[RunNews]"
BASE = {"count": 3, "maximum": 6, "quorum": 2, "deadline_s": 60.0, "retry_pause_s": 0.0}


def plan_with(*gateways: str, **rounds):
    return plan_of(*gateways, rounds=Rounds(**{**BASE, **rounds}))


@asynccontextmanager
async def watching(*gateways: FakeGateway) -> AsyncIterator[tuple[Words, ...]]:
    """Have gateways listen: they are connected, and do nothing on their own."""
    words: tuple[Words, ...] = tuple(asyncio.Queue() for _ in gateways)
    listening = [
        asyncio.create_task(_listen(gateway, heard))
        for gateway, heard in zip(gateways, words, strict=True)
    ]
    try:
        for heard in words:
            await heard.get()
        yield words
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def _listen(gateway: FakeGateway, heard: Words) -> None:
    lease = (await gateway.client.register(VERSIONS)).lease
    async for news in gateway.client.watch(lease, []):
        gateway.seen.append(news)
        heard.put_nowait(news)


async def told_to_train(heard: Words) -> int:
    """Return the next round that a gateway is told to train."""
    while not isinstance((news := await heard.get()).instruction, Train):
        pass
    return news.instruction.round


async def accept(*gateways: FakeGateway) -> None:
    for gateway in gateways:
        await gateway.accept(RUN)


async def send(status: RunStatus, *gateways: FakeGateway) -> None:
    for gateway in gateways:
        await gateway.send(RUN, status.round, status.weights)


def at_round(number: int) -> Callable[[RunStatus], bool]:
    """Whether that round is open, or the run is over."""
    return lambda status: (
        status.has_ended or (status.round == number and status.published_round == number - 1)
    )


def counts(status: RunStatus) -> dict[str, tuple[int, int]]:
    """How many rounds each gateway was invited to, and was counted in."""
    return {each.gateway: (each.rounds_invited, each.rounds_counted) for each in status.gateways}


def told(gateway: FakeGateway) -> list[int]:
    return [n.instruction.round for n in gateway.seen if isinstance(n.instruction, Train)]


async def test_a_round_closes_with_its_target_and_what_comes_later_costs_it_nothing(federation):
    plan = plan_with("a", "b", "c", target=2, over_selection=1)
    async with federation.serving():
        operator = await federation.start(plan)
        a, b, c = await federation.gateways("a", "b", "c")
        async with watching(a, b, c):
            await accept(a, b, c)
            first = await until(operator, at_round(1))
            await send(first, a, c)
            second = await until(operator, at_round(2))
            with pytest.raises(ConflictError, match="round 1 of run 'r' takes no updates"):
                await b.send(RUN, 1, INITIAL.digest)
            later = await until(operator, lambda _: True)
    assert counts(second) == {"a": (2, 1), "b": (2, 0), "c": (2, 1)}
    assert (later.weights, later.published_round) == (second.weights, 1)


async def test_a_target_gives_the_mean_of_those_who_came(federation):
    plan = plan_with("a", "b", "c", count=1, target=2, over_selection=1)
    async with federation.serving():
        operator = await federation.start(plan)
        a, b, c = await federation.gateways("a", "b", "c")
        await accept(a, b, c)
        await send(await until(operator, at_round(1)), b, c)
        over_selected = await until(operator, lambda status: status.has_ended)
        await federation.start(plan_with("a", "b", "c", count=1), "other")
        for gateway in (a, b, c):
            await gateway.accept("other")
        for gateway in (c, b):
            await gateway.send("other", 1, INITIAL.digest)
        federation.clock.advance(60.0)
        at_deadline = await until(operator, lambda status: status.has_ended, "other")
    assert over_selected.model == at_deadline.model != INITIAL.digest


async def test_after_a_restart_no_late_update_takes_the_place_of_one_that_was_counted(federation):
    plan = plan_with("a", "b", "c", target=2, over_selection=1)
    async with federation.serving():
        operator = await federation.start(plan)
        a, b, c = await federation.gateways("a", "b", "c")
        await accept(a, b, c)
        await send(await until(operator, at_round(1)), a)
    async with federation.serving():
        operator = await federation.operator()
        a, b, c = await federation.gateways("a", "b", "c")
        first = await until(operator, at_round(1))
        await send(first, c)
        with pytest.raises(ConflictError, match="has the 2 updates that it takes"):
            await send(first, b)
        await send(first, a)
        status = await until(operator, at_round(2))
    assert counts(status) == {"a": (2, 1), "b": (1, 0), "c": (2, 1)}


async def test_the_place_of_one_who_declines_after_a_restart_goes_to_another(federation):
    plan = plan_with("a", "b", "c", quorum=1, target=1, over_selection=2)
    async with federation.serving() as server:
        operator = await federation.start(plan)
        a, b, c = await federation.gateways("a", "b", "c")
        await accept(a, b, c)
        first = await until(operator, at_round(1))
        server.orchestrator.submissions.after_folds = _never  # the round stays as it is
        await send(first, a)
    async with federation.serving():
        operator = await federation.operator()
        a, b, c = await federation.gateways("a", "b", "c")
        async with watching(b) as (heard,):
            assert told(b) == []
            no = Refusal(RefusalReason.FAILED)
            await a.client.decline(Decline(UpdateKey(RUN, 1), no))
            assert await told_to_train(heard) == 1
            await send(first, b)
        status = await until(operator, at_round(2))
    assert {name: counted for name, (_, counted) in counts(status).items()} == {
        "a": 0,
        "b": 1,
        "c": 0,
    }


async def _never(work) -> None:
    await asyncio.Event().wait()


async def test_who_is_slow_is_not_waited_for_and_joins_the_next_round(federation):
    async with federation.serving():
        operator = await federation.start(plan_with("a", "b", "c"))
        a, b, c = await federation.gateways("a", "b", "c")
        async with watching(a, b, c) as (_, _, heard):
            await accept(a, b, c)
            await send(await until(operator, at_round(1)), a, b)
            federation.clock.advance(59.0)
            still = await until(operator, lambda _: True)
            federation.clock.advance(1.0)
            second = await until(operator, at_round(2))
            with pytest.raises(ConflictError, match="takes no updates"):
                await c.send(RUN, 1, INITIAL.digest)
            await send(second, a, b, c)
            third = await until(operator, at_round(3))
            assert [await told_to_train(heard) for _ in range(3)] == [1, 2, 3]
    assert (still.round, still.published_round) == (1, 0)
    assert counts(third) == {"a": (3, 2), "b": (3, 2), "c": (3, 1)}


async def test_who_comes_after_the_run_began_joins_the_next_round(federation):
    async with federation.serving():
        operator = await federation.start(plan_with("a", "b", "c"))
        a, b, c = await federation.gateways("a", "b", "c")
        async with watching(a, b):
            await accept(a, b)
            federation.clock.advance(60.0)  # a run gathers for as long as a round lasts
            first = await until(operator, at_round(1))
            async with watching(c) as (heard,):
                await accept(c)
                await send(first, a, b)
                second = await until(operator, at_round(2))
                assert await told_to_train(heard) == 2
    assert counts(first)["c"] == (0, 0)
    assert counts(second) == {"a": (2, 1), "b": (2, 1), "c": (1, 0)}


async def test_who_leaves_in_the_middle_is_left_out_until_it_is_back(federation):
    async with federation.serving():
        operator = await federation.start(plan_with("a", "b", "c"))
        a, b, c = await federation.gateways("a", "b", "c")
        async with watching(a, b):
            async with watching(c):
                await accept(a, b, c)
                first = await until(operator, at_round(1))
            await send(first, a, b)
            federation.clock.advance(60.0)
            second = await until(operator, at_round(2))
            await send(second, a, b)  # nobody else is waited for: no time passes
            third = await until(operator, at_round(3))
            await send(third, a, b)
            last = await until(operator, lambda status: status.has_ended)
    assert counts(second)["c"] == counts(third)["c"] == (1, 0)
    assert counts(last)["a"] == (3, 3)


async def test_who_is_back_is_invited_again(federation):
    async with federation.serving():
        operator = await federation.start(plan_with("a", "b", "c"))
        a, b, c = await federation.gateways("a", "b", "c")
        async with watching(a, b):
            await accept(a, b, c)
            first = await until(operator, at_round(1))
            await send(first, a, b)
            federation.clock.advance(60.0)
            second = await until(operator, at_round(2))
            async with watching(c):
                await send(second, a, b)
                third = await until(operator, at_round(3))
    assert [counts(status)["c"] for status in (second, third)] == [(1, 0), (2, 0)]


async def test_a_round_opens_when_its_sites_are_connected(federation):
    async with federation.serving():
        operator = await federation.start(plan_with("a", "b", "c", minimum_sites=3))
        a, b, c = await federation.gateways("a", "b", "c")
        await accept(a, b, c)
        async with watching(a, b):
            held = await until(operator, lambda status: status.reason.startswith("2 of"))
            async with watching(c):
                first = await until(operator, at_round(1))
    assert held.reason == "2 of the rounds.minimum_sites = 3 gateways needed were connected"
    assert (held.state, held.remaining_s) == (RunState.GATHERING, 86_400.0)
    assert first.reason == ""


async def test_sites_that_never_come_fail_the_run(federation):
    async with federation.serving():
        operator = await federation.start(plan_with("a", "b", "c", wait_for_sites_s=500.0))
        (a,) = await federation.gateways("a")
        await accept(a)
        federation.clock.advance(60.0)
        await until(operator, lambda status: bool(status.reason))
        federation.clock.advance(500.0)
        status = await until(operator, lambda status: status.has_ended)
    assert status.state is RunState.FAILED
    assert status.reason.startswith("1 of the rounds.quorum = 2 gateways needed accepted the plan")


async def test_the_pause_before_a_retry_goes_on_after_a_restart(federation):
    plan = plan_with("a", "b", retry_pause_s=30.0)
    async with federation.serving():
        operator = await federation.start(plan)
        a, b = await federation.gateways("a", "b")
        await accept(a, b)
        await until(operator, at_round(1))
        await a.client.decline(Decline(UpdateKey(RUN, 1), Refusal(RefusalReason.FAILED)))
        held = await until(operator, lambda status: bool(status.reason))
    async with federation.serving() as server:
        live = server.orchestrator.runs.get(RUN)
        assert (live.run.hold, server.orchestrator.runs.remaining_s(live)) == (Hold.RETRY, 30.0)
        operator = await federation.operator()
        federation.clock.advance(29.0)
        waiting = await until(operator, lambda _: True)
        federation.clock.advance(1.0)
        again = await until(operator, lambda status: status.opened_rounds == 2)
    assert held.reason.startswith("round 1 will be opened again: at most 1 of the 2 updates")
    assert waiting.opened_rounds == 1
    assert counts(again) == {"a": (1, 0), "b": (1, 0)}
