"""Updates that a plan has kept: durable at the orchestrator, and counted again after a restart."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from common.ids import GatewayId, RunId
from common.protocol import Body
from common.transfer import digest_of
from orchestrator.config import Limits
from orchestrator.orchestrator import Orchestrator
from tests.fakes import INITIAL, FakeClock, FakeGateway, chunks, plan_of
from tests.signing import order

RUN = RunId("r")


@asynccontextmanager
async def serving(folder):
    """An orchestrator over what an earlier one left in the folder."""
    url = f"sqlite:///{folder / 'journal.db'}"
    orchestrator = Orchestrator(
        folder, url, federation="acme", clock=FakeClock(), limits=Limits()
    ).start(restart_grace_s=30.0)
    try:
        yield orchestrator
    finally:
        await orchestrator.close()


async def begin(orchestrator, **changes) -> tuple[FakeGateway, FakeGateway]:
    """Start a run of two gateways, and let the first send its update for round 1."""
    data = INITIAL.to_bytes()
    await orchestrator.operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data))
    plan = plan_of("a", "b", **changes)
    await orchestrator.operations.start_run(*order(RUN, plan))
    a, b = gateways(orchestrator)
    await a.accept("r")
    await b.accept("r")
    await until(orchestrator, lambda status: status.round == 1)
    await a.send("r", 1, INITIAL.digest)
    return a, b


def gateways(orchestrator) -> tuple[FakeGateway, FakeGateway]:
    return tuple(FakeGateway(n, orchestrator.seen_by(GatewayId(n))) for n in ("a", "b"))


async def published(orchestrator) -> str:
    """Let the second gateway send its update; return what round 1 makes."""
    await gateways(orchestrator)[1].send("r", 1, INITIAL.digest)
    await until(orchestrator, lambda status: status.published_round == 1)
    return orchestrator.runs.get(RUN).run.weights


async def undisturbed(folder) -> str:
    async with serving(folder) as orchestrator:
        await begin(orchestrator)
        return await published(orchestrator)


async def until(orchestrator, condition) -> None:
    async for status in orchestrator.operations.watch_run(RUN):
        if condition(status):
            return
    raise AssertionError("the run ended before that")


def awaited(orchestrator) -> set[str]:
    return set(orchestrator.runs.get(RUN).run.round.awaited)


def received(orchestrator) -> set[str]:
    return set(orchestrator.runs.get(RUN).run.round.received)


async def test_after_a_restart_a_kept_update_is_counted_without_its_gateway(tmp_path):
    async with serving(tmp_path / "kept") as orchestrator:
        a, _ = await begin(orchestrator, keep_updates=True)
    kept = tmp_path / "kept" / "weights" / digest_of(a.body(1))
    assert kept.read_bytes() == a.body(1)
    async with serving(tmp_path / "kept") as orchestrator:
        await until(orchestrator, lambda _: "a" in received(orchestrator))
        assert not awaited(orchestrator)
        assert await published(orchestrator) == await undisturbed(tmp_path / "undisturbed")
    assert kept.exists()


@pytest.mark.parametrize("keep", [True, False])
async def test_what_is_not_there_or_damaged_is_awaited_and_comes_again(tmp_path, keep):
    async with serving(tmp_path / "kept") as orchestrator:
        a, _ = await begin(orchestrator, keep_updates=keep)
    kept = tmp_path / "kept" / "weights" / digest_of(a.body(1))
    assert kept.exists() is keep
    if keep:
        kept.write_bytes(bytes(len(a.body(1))))
    async with serving(tmp_path / "kept") as orchestrator:
        gateway = gateways(orchestrator)[0]
        assert awaited(orchestrator) == {"a"}
        await gateway.send("r", 1, INITIAL.digest)
        assert kept.exists() is keep
        assert await published(orchestrator) == await undisturbed(tmp_path / "undisturbed")
    if keep:
        assert kept.read_bytes() == a.body(1)
