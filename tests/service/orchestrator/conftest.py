"""An orchestrator on 127.0.0.1 with mTLS and real stores, and those who call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
import tomli_w
from sqlalchemy import Engine
from structlog.testing import capture_logs

from cli.operator_client import OperatorClient
from common import wire
from common.plan import Plan
from common.protocol import Chunk, Decline, Receipt, UpdateHeader
from common.tls import Role, TlsFiles
from common.weights import Weights
from gateway.client import GrpcClient
from orchestrator.config import OrchestratorConfig
from orchestrator.database import open_database
from orchestrator.server import Listening, listening
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1 import weights_pb2
from protos.federation.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.certificates import Authority
from tests.fakes import INITIAL, FakeClock, FakeGateway
from tests.signing import order


class Lawless(GrpcClient):
    """A gateway's software that keeps to no manifest and sends what it likes."""

    def _use(self, channel) -> None:
        self._stub = GatewayServiceStub(channel)

    async def submit_update(self, header: UpdateHeader, chunks: AsyncIterator[Chunk]) -> Receipt:
        """Send all of an update without waiting for the word to go ahead, as protobuf packs it."""

        async def requests() -> AsyncIterator[pb.SubmitUpdateRequest]:
            yield pb.SubmitUpdateRequest(header=wire.UPDATE_HEADER.to_message(header))
            async for chunk in chunks:
                piece = weights_pb2.Chunk(offset=chunk.offset, data=bytes(chunk.data))
                yield pb.SubmitUpdateRequest(chunk=piece)

        with self._our_errors():
            return wire.receipt_from_proto(await self._stub.SubmitUpdate(requests()))

    async def decline(self, decline: Decline) -> Receipt:
        """Decline a round."""
        request = pb.SubmitUpdateRequest(decline=wire.DECLINE.to_message(decline))
        with self._our_errors():
            return wire.receipt_from_proto(await self._stub.SubmitUpdate(iter([request])))


@dataclass
class Federation:
    """One state folder; its orchestrator can be stopped and served again."""

    config: OrchestratorConfig
    authority: Authority
    clients: AsyncExitStack
    clock: FakeClock = field(default_factory=FakeClock)
    address: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Listening]:
        async with listening(self.config, clock=self.clock) as server:
            self.address = server.address
            yield server

    async def client(
        self, name: str, tls: TlsFiles | None = None, kind: type[GrpcClient] = GrpcClient
    ) -> GrpcClient:
        files = tls or self.authority.issue(Role.GATEWAY, name)
        return await self.clients.enter_async_context(kind(self.address, files))

    async def gateways(self, *names: str, kind: type[GrpcClient] = GrpcClient) -> list[FakeGateway]:
        return [FakeGateway(name, await self.client(name, kind=kind)) for name in names]

    async def operator(self) -> OperatorClient:
        files = self.authority.issue(Role.OPERATOR, "olga")
        return await self.clients.enter_async_context(OperatorClient(self.address, files))

    async def start(
        self, plan: Plan, run_id: str = "r", initial: Weights = INITIAL
    ) -> OperatorClient:
        """Start a run of `plan`; return the operator who did."""
        operator = await self.operator()
        await operator.upload_weights(initial.to_bytes())
        await operator.start_run(*order(run_id, plan))
        return operator


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An open database, in each engine."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def lawless() -> type[GrpcClient]:
    return Lawless


@pytest.fixture
def database() -> str:
    """Where the journal is; a module that tests both engines overrides it."""
    return ""


@pytest.fixture
async def federation(tmp_path, database) -> AsyncIterator[Federation]:
    authority = Authority.make(tmp_path / "keys")
    config = OrchestratorConfig(
        federation="acme",
        address="127.0.0.1:0",
        state=tmp_path / "state",
        database=database,
        tls=authority.issue(Role.ORCHESTRATOR, "orchestrator"),
        drain_s=0.2,
    )
    async with AsyncExitStack() as clients:
        yield Federation(config, authority, clients)


@pytest.fixture
async def serving(federation, tmp_path):
    """A federation that serves, and an operator's settings."""
    with capture_logs():
        async with federation.serving():
            files = federation.authority.issue(Role.OPERATOR, "olga")
            tls = {name: str(path) for name, path in files}
            config = tmp_path / "operator.toml"
            config.write_text(tomli_w.dumps({"address": federation.address, "tls": tls}))
            yield federation, str(config)
