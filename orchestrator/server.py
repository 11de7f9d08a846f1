"""Build everything, serve, drain."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from common import logs
from common.allocator import MIB, keep_on_the_heap
from common.clock import SystemClock
from common.descriptors import allow_many
from common.errors import UnavailableError
from orchestrator.auth import SERVICES, SERVICES_OF_PEOPLE
from orchestrator.four_eyes import FourEyes
from orchestrator.gateway_service import GatewayService
from orchestrator.leadership import leading
from orchestrator.operator_service import OperatorService
from orchestrator.orchestrator import Orchestrator
from orchestrator.rpc_errors import GuardingInterceptor
from protos.federation.v1.gateway_pb2_grpc import add_GatewayServiceServicer_to_server
from protos.federation.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import NoReturn

    from common.clock import Clock
    from orchestrator.config import OidcSettings, OrchestratorConfig
    from orchestrator.leadership import Leadership
    from orchestrator.tokens import Tokens

log = structlog.get_logger()

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_WHOLE = ""  # what a probe asks for


class AddressTaken(UnavailableError):
    """The server cannot listen where it should."""

    def __init__(self, address: str) -> None:
        super().__init__(f"cannot listen on {address}: does another process? Set `address`")


@dataclass(frozen=True)
class Listening:
    """A server that has begun to serve."""

    address: str  # host:port, with the port that was taken
    orchestrator: Orchestrator
    peoples_address: str | None = None  # where they call with tokens


@dataclass(frozen=True)
class _Door:
    """A server, and where it is to listen."""

    server: grpc.aio.Server
    address: str
    credentials: grpc.ServerCredentials

    def bind(self) -> str:
        """Listen; return the address with the port that was taken."""
        try:
            port = self.server.add_secure_port(self.address, self.credentials)
        except RuntimeError as error:
            raise AddressTaken(self.address) from error
        return f"{self.address.rpartition(':')[0]}:{port}"


async def serve(
    config: OrchestratorConfig,
    *,
    standby: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until another orchestrator takes over.

    Args:
        config: the settings.
        standby: wait until no other orchestrator leads over the same database.
        ready: called with the address once calls are answered.

    Raises:
        FederationError: it cannot serve, or had to stop; the text says why.
    """
    logs.configure(config.log.style, verbose=config.log.verbose)
    keep_on_the_heap(16 * MIB)
    allow_many()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_serve(config, standby=standby, ready=ready))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def _serve(
    config: OrchestratorConfig, *, standby: bool, ready: Callable[[str], None] | None
) -> None:
    """Serve until cancelled, or until this process must stop acting."""
    async with listening(config, standby=standby) as server:
        if ready is not None:
            ready(server.address)
        runs = server.orchestrator.runs
        await runs.halted.wait()
        if runs.failure is not None:
            raise runs.failure


@asynccontextmanager
async def listening(
    config: OrchestratorConfig, *, clock: Clock | None = None, standby: bool = False
) -> AsyncIterator[Listening]:
    """Serve inside the block; at its end drain, then let everything go.

    Until no other orchestrator leads, a standby listens to nothing but probes.
    """
    clock, state = clock or SystemClock(), health.aio.HealthServicer()
    await state.set(_WHOLE, _NOT_SERVING)
    async with (
        _answering_probes(config, state),
        leading(config.database_url, clock, standby=standby) as leadership,
    ):
        orchestrator = Orchestrator(
            config.state,
            config.database_url,
            federation=config.federation,
            clock=clock,
            limits=config.limits,
            shared=config.shared,
        )
        async with (
            _kept(leadership, orchestrator),
            _closed(orchestrator),
            _doors(config, orchestrator, state, clock) as doors,
            _answering(config, orchestrator, state, doors) as addresses,
        ):
            yield Listening(addresses[0], orchestrator, *addresses[1:])


@asynccontextmanager
async def _kept(leadership: Leadership | None, orchestrator: Orchestrator) -> AsyncIterator[None]:
    """Keep the leadership inside the block; halt where another process has it."""
    if leadership is None:
        yield
        return

    def halt(keeping: asyncio.Task[NoReturn]) -> None:
        if not keeping.cancelled() and (error := keeping.exception()) is not None:
            orchestrator.runs.halt(error)

    keeping = asyncio.create_task(leadership.keep(orchestrator.epoch), name="leadership")
    keeping.add_done_callback(halt)
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])


@asynccontextmanager
async def _closed(orchestrator: Orchestrator) -> AsyncIterator[None]:
    """Let go of all that the orchestrator holds, whatever the block could not do."""
    try:
        yield
    finally:
        await orchestrator.close()
        log.info("stopped")


@asynccontextmanager
async def _answering(
    config: OrchestratorConfig,
    orchestrator: Orchestrator,
    state: health.aio.HealthServicer,
    doors: Sequence[_Door],
) -> AsyncIterator[list[str]]:
    """Answer calls inside the block, which is lent the doors' addresses; drain at its end."""
    try:
        addresses = [door.bind() for door in doors]
        orchestrator.start(restart_grace_s=config.restart_grace_s)
        for door in doors:
            await door.server.start()
        for service in (*SERVICES, _WHOLE):
            await state.set(service, _SERVING)
        _write_atomically(config.address_file, addresses[0])
        health_at = str(config.health_socket_path)
        log.info("serving", address=addresses[0], people=addresses[1:], health=health_at)
        yield addresses
    finally:
        config.address_file.unlink(missing_ok=True)
        await state.enter_graceful_shutdown()
        orchestrator.sessions.close()
        await asyncio.gather(*(door.server.stop(config.drain_s) for door in doors))


@asynccontextmanager
async def _doors(
    config: OrchestratorConfig,
    orchestrator: Orchestrator,
    state: health.aio.HealthServicer,
    clock: Clock,
) -> AsyncIterator[list[_Door]]:
    """Lend the doors that are to be opened: everybody's, and that of people with tokens."""
    limits, tls, options = config.four_eyes, config.tls, config.http2.server_options()
    four_eyes = FourEyes(
        limits.methods, within_s=limits.within_s, fence=orchestrator.fence, clock=clock
    )
    guard = GuardingInterceptor(config.federation, four_eyes=four_eyes)
    server = grpc.aio.server(interceptors=[guard], options=options)
    add_GatewayServiceServicer_to_server(GatewayService(orchestrator), server)
    _add_services_of_people(server, orchestrator, state, SERVICES)
    doors = [_Door(server, config.address, tls.server_credentials())]
    if config.oidc is None:
        yield doors
        return
    async with _signing_in(config.oidc, clock) as tokens:
        guard = GuardingInterceptor(config.federation, four_eyes=four_eyes, tokens=tokens)
        server = grpc.aio.server(interceptors=[guard], options=options)
        _add_services_of_people(server, orchestrator, state, SERVICES_OF_PEOPLE)
        yield [*doors, _Door(server, config.oidc.address, tls.people_credentials())]


def _add_services_of_people(
    server: grpc.aio.Server,
    orchestrator: Orchestrator,
    state: health.aio.HealthServicer,
    names: Sequence[str],
) -> None:
    add_OperatorServiceServicer_to_server(OperatorService(orchestrator), server)
    add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection(names, server)


@asynccontextmanager
async def _signing_in(oidc: OidcSettings, clock: Clock) -> AsyncIterator[Tokens]:
    """Lend what tells people by their tokens; `cryptography` takes memory, so only now."""
    from orchestrator.provider_keys import ProviderKeys  # noqa: PLC0415
    from orchestrator.tokens import Tokens  # noqa: PLC0415

    keys = ProviderKeys(oidc.issuer, oidc.authority, clock)
    try:
        yield Tokens(oidc, keys, clock)
    finally:
        await keys.close()


@asynccontextmanager
async def _answering_probes(
    config: OrchestratorConfig, state: health.aio.HealthServicer
) -> AsyncIterator[None]:
    """Answer health alone, to this machine alone."""
    config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    probes = grpc.aio.server()
    add_HealthServicer_to_server(state, probes)
    probes.add_insecure_port(f"unix:{config.health_socket_path.absolute()}")
    await probes.start()
    try:
        yield
    finally:
        await probes.stop(None)


def _write_atomically(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
