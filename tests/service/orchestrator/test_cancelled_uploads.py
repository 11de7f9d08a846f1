"""A call that is broken off while a thread still writes its bytes."""

from __future__ import annotations

import asyncio
import threading

import pytest

from common.errors import UnavailableError
from common.ids import GatewayId, RunId
from common.protocol import Body, Chunk
from orchestrator.config import Limits
from orchestrator.orchestrator import Orchestrator
from tests.fakes import INITIAL, FakeClock, FakeGateway, chunks, plan_of
from tests.signing import order


class SlowBytes(bytes):
    """Bytes that a thread cannot write before it may."""

    may_go = threading.Event()
    reached = threading.Event()

    def __len__(self) -> int:
        if threading.current_thread() is not threading.main_thread():
            self.reached.set()
            self.may_go.wait(10)
        return super().__len__()


@pytest.fixture
async def orchestrator(tmp_path):
    url, data = f"sqlite:///{tmp_path / 'journal.db'}", INITIAL.to_bytes()
    orchestrator = Orchestrator(
        tmp_path, url, federation="acme", clock=FakeClock(), limits=Limits()
    )
    orchestrator.start(restart_grace_s=1.0)
    await orchestrator.operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data))
    await orchestrator.operations.start_run(*order("r", plan_of("a")))
    yield orchestrator
    await orchestrator.close()


@pytest.fixture
async def gateway(orchestrator):
    """The only gateway, in round 1."""
    gateway = FakeGateway("a", orchestrator.seen_by(GatewayId("a")))
    await gateway.accept("r")
    async for status in orchestrator.operations.watch_run(RunId("r")):
        if status.round == 1:
            return gateway
    raise AssertionError("the run ended before its first round")


async def test_a_slot_stays_taken_until_its_last_byte_is_written(orchestrator, gateway):
    data = gateway.body(1)
    header = await gateway.header("r", 1, INITIAL.digest, data)

    async def slowly():
        yield Chunk(0, SlowBytes(data[:100]))
        await asyncio.Event().wait()

    torn = asyncio.create_task(gateway.client.submit_update(header, slowly()))
    await asyncio.to_thread(SlowBytes.reached.wait, 10)
    torn.cancel()
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="is going on"):
        await gateway.client.submit_update(header, chunks(data))
    SlowBytes.may_go.set()
    await asyncio.gather(torn, return_exceptions=True)
    state = await gateway.client.get_upload(header.key, header.body.digest)
    assert (torn.cancelled(), state.offset) == (True, 100)
    assert orchestrator.runs.get(RunId("r")).bytes_received == 100
