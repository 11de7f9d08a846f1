"""A disk that fails while an update is added: nothing is published of it, all come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from common import wire
from common.errors import UnavailableError
from common.ids import GatewayId, RunId
from common.plan import Rounds
from common.protocol import Body, RunState
from orchestrator.aggregation import Accumulator
from orchestrator.config import Limits
from orchestrator.live_runs import LiveRun
from orchestrator.orchestrator import Orchestrator
from orchestrator.weight_store import StorageFailed
from tests.fakes import INITIAL, FakeClock, FakeGateway, chunks, plan_of

PLAN = plan_of("a", "b", rounds=Rounds(count=1, maximum=1, quorum=2, deadline_s=60.0))


async def opened(folder) -> tuple[Orchestrator, list[FakeGateway]]:
    """Return an orchestrator and two gateways that are in its only round."""
    url, data = f"sqlite:///{folder / 'journal.db'}", INITIAL.to_bytes()
    orchestrator = Orchestrator(folder, url, federation="f", clock=FakeClock(), limits=Limits())
    orchestrator.start(restart_grace_s=1.0)
    await orchestrator.operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data))
    await orchestrator.operations.start_run(RunId("r"), wire.plan_to_bytes(PLAN))
    gateways = [FakeGateway(name, orchestrator.seen_by(GatewayId(name))) for name in "ab"]
    for gateway in gateways:
        await gateway.accept("r")
    live = orchestrator.runs.get(RunId("r"))
    await until(live, lambda: live.run.round is not None)
    return orchestrator, gateways


async def until(live: LiveRun, holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.wait_for(live.changed.next.wait(), 5.0)


async def model(orchestrator: Orchestrator) -> str:
    async for status in orchestrator.operations.watch_run(RunId("r")):
        last = status
    assert last.state is RunState.COMPLETED, last
    return last.model_sha256


async def test_a_sum_that_may_hold_a_part_of_an_update_is_made_again(tmp_path, monkeypatch):
    whole, gateways = await opened(tmp_path / "whole")
    for gateway in gateways:
        await gateway.send("r", 1, INITIAL.digest)
    expected = await model(whole)
    await whole.close()

    torn, (a, b) = await opened(tmp_path / "torn")
    live, add = torn.runs.get(RunId("r")), Accumulator.add
    await a.send("r", 1, INITIAL.digest)

    def half(self, gateway, values, weight):
        self.memory[0] += 5
        raise StorageFailed(OSError(5, "Input/output error"))

    monkeypatch.setattr(Accumulator, "add", half)
    with pytest.raises(UnavailableError, match="disk failed"):
        await b.send("r", 1, INITIAL.digest)
    monkeypatch.setattr(Accumulator, "add", add)
    await until(live, lambda: not live.is_in_doubt)
    assert set(live.run.round.awaited) == {"a", "b"}
    for gateway in (a, b):
        await gateway.send("r", 1, INITIAL.digest)
    assert await model(torn) == expected
    await torn.close()
