"""The event loop of many processes: what belongs to which."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.simulation.loop import PROCESS, Process, SimulatedLoop


@pytest.fixture
def loop():
    loop = SimulatedLoop(Random(1))
    yield loop
    for process in (*loop.processes,):
        process.kill()
    loop.close()


async def endless(closed: list[Process | None]):
    try:
        while True:
            yield await asyncio.sleep(1.0)
    finally:
        closed.append(PROCESS.get())


def test_a_generator_that_is_let_go_is_closed_by_its_own_process(loop):
    first, second, closed = Process(loop, "first"), Process(loop, "second"), []
    held = []

    async def begin() -> None:
        held.append(endless(closed))
        await anext(held[0])

    async def let_go() -> None:
        await asyncio.sleep(2.0)
        held.clear()
        await asyncio.sleep(1.0)

    first.spawn(begin())
    loop.run_until_complete(second.spawn(let_go()))
    assert closed == [first]
