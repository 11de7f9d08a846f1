"""Two orchestrators over one PostgreSQL: one leads, one stands by, and they never both write."""

from __future__ import annotations

import asyncio
import signal
import time  # noqa: TID251 - a take-over takes real seconds
from contextlib import AsyncExitStack, asynccontextmanager

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy import insert
from structlog.testing import capture_logs

from cli.operator_client import OperatorClient
from common import wire
from common.clock import SystemClock
from common.errors import UnavailableError
from common.tls import Role
from gateway.client import GrpcClient
from orchestrator import engines, leadership
from orchestrator.config import OrchestratorConfig
from orchestrator.database import BLOBS, open_database
from orchestrator.fencing import Fence, JournalFailed, Superseded
from orchestrator.leadership import AnotherLeads, StandbyNeedsPostgresql
from orchestrator.server import listening, serve
from orchestrator.weight_store import WeightStore
from tests.certificates import Authority
from tests.fakes import INITIAL, VERSIONS, plan_of
from tests.postgresql import Server
from tests.signing import order

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
HOLDERS = "select pid from pg_locks where locktype = 'advisory' and granted"
PLAN = wire.plan_to_bytes(plan_of("a"))


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority.make(tmp_path / "keys")


class Pair:
    """Two orchestrators that share a database and a folder."""

    def __init__(self, folder, authority: Authority, server: Server) -> None:
        self.server, self.name = server, server.make_database()
        self.configs = {
            name: OrchestratorConfig(
                federation="acme",
                address="127.0.0.1:0",
                state=folder / name,
                shared=folder / "shared",
                database=server.tcp_url(self.name),
                tls=authority.issue(Role.ORCHESTRATOR, name),
                drain_s=0.2,
            )
            for name in ("first", "second")
        }

    @asynccontextmanager
    async def standing_by(self):
        """Lend a task that ends once the second one serves; it stops at the end of the block."""
        stop, served = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def stand_by():
            async with listening(self.configs["second"], standby=True) as server:
                served.set_result(server)
                await stop.wait()

        task = asyncio.create_task(stand_by())
        try:
            await self.until(lambda: self.says("second", NOT_SERVING))
            yield served
        finally:
            stop.set()
            if not served.done():
                task.cancel()
            await asyncio.wait([task])

    async def says(self, name: str, status) -> bool:
        socket = self.configs[name].health_socket_path
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            try:
                said = await HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                return False
        return said.status == status

    async def until(self, holds) -> None:
        async with asyncio.timeout(50):
            while not await holds():  # noqa: ASYNC110 - it is others that are waited for
                await asyncio.sleep(0.05)

    async def is_held(self) -> bool:
        """Whether somebody has the lock."""
        return bool(self.server.ask(self.name, HOLDERS))

    async def is_free(self) -> bool:
        return not await self.is_held()

    def end_session(self) -> None:
        """End the session of the one that holds the lock, as a server does that is restarted."""
        ended = f"select pg_terminate_backend(pid) from ({HOLDERS}) as held"  # noqa: S608
        self.server.ask(self.name, ended)


@pytest.fixture
def pair(tmp_path, authority, postgresql) -> Pair:
    return Pair(tmp_path, authority, postgresql)


async def test_a_standby_listens_to_probes_alone_and_takes_over_at_the_leaders_end(pair):
    async with pair.standing_by() as before:
        leader = await before  # nobody led: it does
        assert leader.orchestrator.epoch == 1
    async with AsyncExitStack() as leading:
        await leading.enter_async_context(listening(pair.configs["first"]))
        async with pair.standing_by() as served:
            assert not pair.configs["second"].address_file.exists()
            assert not served.done()
            began = time.monotonic()
            await leading.aclose()
            taken = await asyncio.wait_for(served, 50)
            assert time.monotonic() - began < 5
            assert taken.orchestrator.epoch == 3
            assert await pair.says("second", SERVING)


async def test_a_signal_ends_a_standby_that_waits(pair):
    async with listening(pair.configs["first"]):
        waiting = asyncio.create_task(serve(pair.configs["second"], standby=True))
        await pair.until(lambda: pair.says("second", NOT_SERVING))
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(waiting, 50)


async def test_a_second_orchestrator_that_is_no_standby_is_refused(pair, monkeypatch):
    monkeypatch.setattr(leadership, "PATIENCE_S", 0.5)
    async with listening(pair.configs["first"]) as leader:
        with pytest.raises(AnotherLeads, match="--standby"):
            async with listening(pair.configs["second"]):
                pass
        assert not leader.orchestrator.runs.halted.is_set()


async def test_sqlite_has_no_standby(pair):
    config = pair.configs["first"].model_copy(update={"database": ""})
    with pytest.raises(StandbyNeedsPostgresql, match="SQLite is a file of one machine"):
        async with listening(config, standby=True):
            pass


async def test_a_leader_that_lost_its_session_leads_on_where_nobody_took_over(pair):
    async with listening(pair.configs["first"]) as leader:
        with capture_logs() as logged:
            pair.end_session()
            await pair.until(pair.is_free)
            await pair.until(pair.is_held)
        assert "leadership_in_doubt" in [line["event"] for line in logged]
        assert not leader.orchestrator.runs.halted.is_set()


async def test_a_leader_that_lost_its_session_halts_once_a_standby_took_over(pair, authority):
    async with listening(pair.configs["first"]) as leader, pair.standing_by() as served:
        started = time.monotonic()
        while not served.done():  # the standby looks more often than the leader
            assert time.monotonic() - started < 50
            pair.end_session()
            await asyncio.wait([served], timeout=0.9)
        await asyncio.wait_for(leader.orchestrator.runs.halted.wait(), 50)
        assert isinstance(leader.orchestrator.runs.failure, Superseded)
        olga = authority.issue(Role.OPERATOR, "olga")
        async with OperatorClient(leader.address, olga) as old:
            with pytest.raises(UnavailableError, match="another orchestrator took over"):
                await old.upload_weights(INITIAL.to_bytes())
        async with OperatorClient(served.result().address, olga) as new:
            await new.upload_weights(INITIAL.to_bytes())
            await new.start_run(*order("r", PLAN))


async def test_a_silent_session_is_ended_by_the_server(pair, monkeypatch):
    """As a leader's that is frozen, or on the far side of a network that is down."""
    monkeypatch.setattr(leadership, "LEASE_S", 1)
    lock = leadership.AdvisoryLock(pair.configs["first"].database)
    assert lock.try_hold()
    assert await pair.is_held()
    await pair.until(pair.is_free)
    lock.close()


async def test_a_standby_outlives_a_database_that_is_away(tmp_path, authority):
    server = Server(fsync=True)
    try:
        server.start()
        pair = Pair(tmp_path, authority, server)
        waiting = leadership.Leadership(pair.configs["second"].database, SystemClock())
        lock = leadership.AdvisoryLock(pair.configs["first"].database)
        assert lock.try_hold()
        with capture_logs() as logged:

            async def is_noticed() -> bool:
                return "standby_without_database" in [line["event"] for line in logged]

            taking = asyncio.create_task(waiting.take(300))
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.stop)
            await pair.until(is_noticed)
            assert not taking.done()
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(taking, 50)
        waiting.close()
        lock.close()
    finally:
        server.remove()


async def test_clients_find_the_one_that_leads(pair, authority):
    nobody, olga = "127.0.0.1:1", authority.issue(Role.OPERATOR, "olga")
    tls = authority.issue(Role.GATEWAY, "a")
    async with listening(pair.configs["first"]) as leader:
        for addresses in ((nobody, leader.address), [leader.address, nobody]):
            async with OperatorClient(addresses, olga) as operator:
                assert await operator.list_runs() == ()
            async with GrpcClient(addresses, tls) as gateway:
                assert (await gateway.register(VERSIONS)).gateway == "a"


async def test_a_gateway_turns_to_the_next_address_when_one_is_gone(pair, authority):
    async with AsyncExitStack() as stack:
        leading = await stack.enter_async_context(AsyncExitStack())
        first = await leading.enter_async_context(listening(pair.configs["first"]))
        served = await stack.enter_async_context(pair.standing_by())
        await leading.aclose()
        second = await asyncio.wait_for(served, 50)
        addresses = (first.address, second.address)
        client = GrpcClient(addresses, authority.issue(Role.GATEWAY, "a"))
        with pytest.raises(UnavailableError, match=first.address):
            await client.register(VERSIONS)  # not entered: it has not looked for the one that leads
        assert (await client.register(VERSIONS)).gateway == "a"
        await client.__aexit__()


def test_a_leader_that_is_frozen_in_a_write_does_not_keep_its_successor_out(pair, monkeypatch):
    monkeypatch.setattr(engines, "IDLE_IN_TRANSACTION_S", 1)
    url = pair.configs["first"].database
    older, newer = open_database(url), open_database(url)
    fence = Fence(older)
    store = WeightStore(pair.configs["first"].shared, fence)
    row = {"digest": "1" * 64, "byte_length": 1}

    def write_slowly() -> None:
        with fence.writing() as connection:
            connection.execute(insert(BLOBS).values(**row))
            assert Fence(newer).epoch == 2  # it waited for the row, not for the older process

    with pytest.raises(JournalFailed):
        write_slowly()
    assert not store.has(row["digest"])
    with pytest.raises(Superseded):
        store.put(b"more")
    for engine in (older, newer):
        engine.dispose()
