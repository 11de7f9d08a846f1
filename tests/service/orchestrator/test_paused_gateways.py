"""A site that has paused: it begins no round, finishes what it has begun, and says so."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from common.protocol import RunState
from common.tls import Role
from gateway.ledger_desk import Desk
from gateway.pause import Pause
from gateway.workshop import Workshop
from orchestrator.events import GatewayDeclined
from tests.at_work import SITE, at_work, plan_for, settings
from tests.fakes import FakeClock, until
from tests.tiny_task import TASK, TinyTask

LABELS = ("no", "yes")
SPECIMENS = 3  # of the tiny task: its model is checked on them before any round
WALL = FakeClock().wall()
RETRIES = 200  # rounds that may be abandoned while nobody takes part


class Halting(TinyTask):
    """Waits in the first batch of the data until it is let go."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def loss(self, model, batch):
        if len(batch[0]) > SPECIMENS:
            self.reached.set()
            assert self.go_on.wait(20)
        return super().loss(model, batch)


@pytest.fixture
def site(federation, tmp_path):
    """A gateway that is not at work yet."""
    files = federation.authority.issue(Role.GATEWAY, SITE)
    state = tmp_path / "site"
    state.mkdir()
    return settings(state, files, LABELS)


@asynccontextmanager
async def working(federation, site, task=TASK):
    """Have the gateway take part."""
    client = await federation.client(SITE, site.tls)
    async with at_work(Workshop(SITE, site, task, None), client):
        yield


def started(federation, *, count: int, maximum: int):
    rounds = {"count": count, "maximum": maximum}
    plan, initial = plan_for(TASK, LABELS, units=60, rounds=rounds)
    return federation.start(plan, initial=initial)


def declined(federation, server):
    events = server.orchestrator.runs.events("r", after=0)
    return [str(each.refusal.reason) for each in events if isinstance(each, GatewayDeclined)]


def charges(site) -> int:
    with Desk(site.state, None).ledger() as ledger:
        return len(ledger.charges())


async def test_a_paused_site_begins_no_round_and_the_orchestrator_is_told_why(federation, site):
    Pause(site.state).turn_on(WALL)
    async with federation.serving() as server:
        operator = await started(federation, count=1, maximum=1)
        async with working(federation, site):
            status = await until(operator, lambda s: s.has_ended)
        assert declined(federation, server) == ["paused"]
    assert status.state is RunState.FAILED
    assert "the last one declined: paused" in status.reason
    assert charges(site) == 0


async def test_what_was_begun_before_the_pause_is_finished_and_nothing_after(federation, site):
    task = Halting()
    async with federation.serving() as server:
        operator = await started(federation, count=2, maximum=2)
        async with working(federation, site, task):
            assert await asyncio.to_thread(task.reached.wait, 20)
            Pause(site.state).turn_on(WALL)
            task.go_on.set()
            status = await until(operator, lambda s: s.has_ended)
        assert declined(federation, server) == ["paused"]
    assert status.published_round == 1
    assert charges(site) == 1


async def test_a_pause_outlives_the_process_and_ends_when_the_site_says_so(federation, site):
    Pause(site.state).turn_on(WALL)
    async with federation.serving():
        operator = await started(federation, count=1, maximum=RETRIES)
        for _ in range(2):
            async with working(federation, site):
                await until(operator, lambda s: s.opened_rounds >= 2 or s.has_ended)
        assert charges(site) == 0
        async with working(federation, site):
            Pause(site.state).turn_off()
            status = await until(operator, lambda s: s.has_ended)
    assert status.state is RunState.COMPLETED
