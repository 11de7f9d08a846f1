"""Several runs at once over the same gateways: none changes a bit of another's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing, closing
from dataclasses import dataclass, field

import pytest

from common.ids import RunId
from common.plan import Plan, Rounds, ServerOptimizer, WhenAbandoned
from common.protocol import (
    Decline,
    Refusal,
    RefusalReason,
    Review,
    RunState,
    RunStatus,
    Stop,
    Train,
    UpdateKey,
)
from tests.fakes import VERSIONS, FakeGateway, difference, plan_of, until

GATEWAYS = ("a", "b", "c")
STEADY, SLOW, CANCELLED, FAILING = "steady", "slow", "cancelled", "failing"


def plan_for(run: str) -> Plan:
    """A plan of its own for each run; in `slow` a deadline passes in every round."""
    rounds = {"count": 3, "maximum": 3, "quorum": 3, "deadline_s": 1e5, "retry_pause_s": 0.0}
    if run == SLOW:
        rounds |= {"quorum": 2, "deadline_s": 60.0}
    if run == FAILING:
        rounds |= {"when_abandoned": WhenAbandoned.END}
    server = ServerOptimizer(learning_rate=0.5 + len(run) / 10, momentum=0.9)
    return plan_of(*GATEWAYS, name=run, rounds=Rounds(**rounds), server=server)


@dataclass
class Busy(FakeGateway):
    """Takes part in every run; `c` says nothing in `slow`, nor where a run ends before its time."""

    ended: set[str] = field(default_factory=set)

    async def follow_all(self, runs: set[str]) -> None:
        lease = (await self.client.register(VERSIONS)).lease
        async with aclosing(self.client.watch(lease, [])) as stream:  # type: ignore[type-var]
            async for news in stream:
                match news.instruction:
                    case Review():
                        await self.accept(news.run_id)
                    case Train() as train:
                        await self.train(news.run_id, train)
                    case Stop():
                        self.ended.add(news.run_id)
                if runs <= self.ended:
                    return

    async def train(self, run: RunId, train: Train) -> None:
        key, no = UpdateKey(run, train.round), Refusal(RefusalReason.FAILED)
        is_last = train.round == 2 and run in {CANCELLED, FAILING}
        if run == FAILING and is_last:
            if self.name == "a":
                await self.client.decline(Decline(key, no))
        elif self.name != "c" or not (run == SLOW or is_last):
            self.update = lambda name, number: difference(f"{run} {name}", number)
            await self.fetch(train.weights)
            await self.send(run, train.round, train.weights.digest)


async def lived(federation, *runs: str) -> dict[str, RunStatus]:
    """Have `runs` live at once, from one moment on; return how each ended."""
    async with federation.serving():
        operator = await federation.operator()
        for run in runs:
            await federation.start(plan_for(run), run)
        gateways = [Busy(name, await federation.client(name)) for name in GATEWAYS]
        async with asyncio.TaskGroup() as tasks:
            for gateway in gateways:
                tasks.create_task(gateway.follow_all(set(runs)))
            if SLOW in runs:
                tasks.create_task(_pass_deadlines(federation, operator))
            if CANCELLED in runs:
                await until(operator, _is_in_round_2, CANCELLED)
                await operator.cancel_run(RunId(CANCELLED))
        return {status.run_id: status for status in await operator.list_runs()}


def _is_in_round_2(status: RunStatus) -> bool:
    return status.round == 2 and sum(each.answered for each in status.gateways) == 2


async def _pass_deadlines(federation, operator) -> None:
    """Let time go by whenever the slow run waits for the one that says nothing."""
    passed = set()
    async for status in _states(operator):
        if status.round not in passed and sum(each.answered for each in status.gateways) == 2:
            passed.add(status.round)
            federation.clock.advance(60.0)


async def _states(operator) -> AsyncIterator[RunStatus]:
    async with aclosing(operator.watch_run(RunId(SLOW))) as states:
        async for status, _ in states:
            yield status


def journal_of(federation, run: str) -> list[tuple[str, str]]:
    """What the journal says of a run, but for times and the order in which gateways came."""
    path = federation.config.state / "journal.db"
    said = (
        "select kind, coalesce(json_extract(payload, '$.gateway'), "
        "json_extract(payload, '$.weights'), json_extract(payload, '$.parent'), '') "
        "from events where run_id = ?"
    )
    with closing(sqlite3.connect(path)) as journal:
        return sorted(journal.execute(said, (run,)).fetchall())


@pytest.fixture
async def together(federation) -> dict[str, RunStatus]:
    return await lived(federation, STEADY, SLOW, CANCELLED, FAILING)


async def test_each_run_ends_as_its_own_plan_says(together):
    states = {run: status.state for run, status in together.items()}
    assert states == {
        STEADY: RunState.COMPLETED,
        SLOW: RunState.COMPLETED,
        CANCELLED: RunState.CANCELLED,
        FAILING: RunState.FAILED,
    }
    assert [each.rounds_counted for each in together[SLOW].gateways] == [3, 3, 0]
    assert together[FAILING].reason.startswith("round 2 was abandoned: at most 2 of the 3")


@pytest.mark.parametrize("run", [STEADY, SLOW, CANCELLED, FAILING])
async def test_a_run_is_bit_for_bit_what_it_is_alone(federation, together, tmp_path, run):
    beside = journal_of(federation, run)
    moved = federation.config.state.rename(tmp_path / "together")
    assert (moved / "journal.db").exists()
    alone = (await lived(federation, run))[run]
    assert (alone.weights, alone.model) == (together[run].weights, together[run].model)
    assert journal_of(federation, run) == beside


def test_the_runs_differ_so_a_mix_of_them_would_show():
    updates = {difference(f"{run} a", 1).tobytes() for run in (STEADY, SLOW, CANCELLED, FAILING)}
    assert len(updates) == 4
