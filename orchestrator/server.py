"""Build everything, serve, drain."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
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
from common.listening import write_atomically
from orchestrator.audit_service import AuditService
from orchestrator.auth import SERVICES, SERVICES_OF_PEOPLE
from orchestrator.doors import MembersDoor, PeopleDoor
from orchestrator.engines import url_of
from orchestrator.four_eyes import FourEyes
from orchestrator.gateway_service import GatewayService
from orchestrator.leadership import leading
from orchestrator.listener import bind
from orchestrator.members import Members
from orchestrator.operator_service import OperatorService
from orchestrator.orchestrator import Orchestrator
from orchestrator.quotas import Quotas
from orchestrator.rpc_errors import GuardingInterceptor
from orchestrator.telemetry import watching
from orchestrator.web_sessions import WebSessions
from protos.federation.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from protos.federation.v1.gateway_pb2_grpc import add_GatewayServiceServicer_to_server
from protos.federation.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from typing import NoReturn

    from common.clock import Clock
    from orchestrator.config import OidcSettings, OrchestratorConfig
    from orchestrator.doors import Door
    from orchestrator.leadership import Leadership
    from orchestrator.tokens import Tokens

log = structlog.get_logger()

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_WHOLE = ""  # what a probe asks for


@dataclass(frozen=True)
class Listening:
    """A server that has begun to serve."""

    address: str  # host:port, with the port that was taken
    orchestrator: Orchestrator
    members: Members
    peoples_address: str | None = None  # where they call with tokens
    page_url: str | None = None  # where they come with a browser


@dataclass(frozen=True)
class _Entrance:
    """A server, and where it is to listen."""

    server: grpc.aio.Server
    address: str
    credentials: grpc.ServerCredentials

    def bind(self) -> str:
        """Listen; return the address with the port that was taken."""
        return bind(self.server, self.address, self.credentials)


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
    clock, state, database = clock or SystemClock(), health.aio.HealthServicer(), url_of(config)
    await state.set(_WHOLE, _NOT_SERVING)
    async with (
        _answering_probes(config, state),
        watching(config, clock) as look,
        leading(database, clock, standby=standby) as leadership,
    ):
        orchestrator = Orchestrator(
            config.state,
            database,
            federation=config.federation,
            clock=clock,
            limits=config.limits,
            shared=config.shared,
        )
        look(orchestrator)
        async with (
            _kept(leadership, orchestrator),
            _closed(orchestrator),
            _entrances(config, orchestrator, state, clock) as (services, entrances),
            _answering(config, orchestrator, state, entrances) as addresses,
            _showing(services) as page_url,
            services.members.watched_over(orchestrator.runs.halt),
            services.members.enrolling(),
        ):
            await _say_so(config, state, addresses)
            people = addresses[1] if config.oidc is not None else None
            yield Listening(addresses[0], orchestrator, services.members, people, page_url)


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
    entrances: Sequence[_Entrance],
) -> AsyncIterator[list[str]]:
    """Answer calls inside the block, which is lent the entrances' addresses; drain at its end."""
    try:
        addresses = [entrance.bind() for entrance in entrances]
        orchestrator.start(restart_grace_s=config.restart_grace_s)
        for entrance in entrances:
            await entrance.server.start()
        yield addresses
    finally:
        config.address_file.unlink(missing_ok=True)
        await state.enter_graceful_shutdown()
        orchestrator.sessions.close()
        await asyncio.gather(*(entrance.server.stop(config.drain_s) for entrance in entrances))


async def _say_so(
    config: OrchestratorConfig, state: health.aio.HealthServicer, addresses: Sequence[str]
) -> None:
    """Say that calls are answered: to probes, in a file and in the log."""
    for service in (*SERVICES, _WHOLE):
        await state.set(service, _SERVING)
    write_atomically(config.address_file, addresses[0])
    health_at = str(config.health_socket_path)
    log.info("serving", address=addresses[0], people=addresses[1:], health=health_at)


@asynccontextmanager
async def _entrances(
    config: OrchestratorConfig,
    orchestrator: Orchestrator,
    state: health.aio.HealthServicer,
    clock: Clock,
) -> AsyncIterator[tuple[_Services, list[_Entrance]]]:
    """Lend what is to be opened: the members' entrance, and that of people with tokens."""
    members = Members(config, orchestrator, clock)
    four_eyes = FourEyes(
        config.four_eyes.methods,
        within_s=config.four_eyes.within_s,
        audit=orchestrator.audit,
        fence=orchestrator.fence,
        clock=clock,
    )
    page = WebSessions(clock, 3600.0 * (config.web.session_hours if config.web else 0.0))
    quotas = Quotas(config.limits)
    services = _Services(config, orchestrator, members, state, quotas, four_eyes, page)
    door = MembersDoor(config.federation, members.callers, four_eyes)
    entrances = [services.for_members(door)]
    if config.oidc is None:
        yield services, entrances
        return
    async with _signing_in(config.oidc, clock) as tokens:
        by_token = PeopleDoor(config.federation, tokens, members.callers, four_eyes)
        peoples = services.for_people(by_token, config.oidc)
        yield services, [*entrances, peoples]


@dataclass(frozen=True)
class _Services:
    """What is answered, and by whom."""

    config: OrchestratorConfig
    orchestrator: Orchestrator
    members: Members
    state: health.aio.HealthServicer
    quotas: Quotas  # of everybody, wherever they call
    four_eyes: FourEyes
    page: WebSessions

    def for_members(self, door: Door) -> _Entrance:
        """Return where everybody with a certificate calls."""
        server = self._server(door)
        add_GatewayServiceServicer_to_server(GatewayService(self.orchestrator), server)
        self.members.serve_renewal_on(server)
        self._serve_people_on(server, SERVICES)
        return _Entrance(server, self.config.address, self.config.tls.server_credentials())

    def for_people(self, door: Door, oidc: OidcSettings) -> _Entrance:
        """Return where people with tokens call."""
        server = self._server(door)
        self._serve_people_on(server, SERVICES_OF_PEOPLE)
        return _Entrance(server, oidc.address, self.config.tls.people_credentials())

    def _server(self, door: Door) -> grpc.aio.Server:
        asked = self.orchestrator
        guard = GuardingInterceptor(door, self.quotas, asked.refused_callers, asked.tally)
        options = [*self.config.http2.server_options(), *self.config.limits.server_options()]
        return grpc.aio.server(interceptors=[guard], options=options)

    def _serve_people_on(self, server: grpc.aio.Server, names: Sequence[str]) -> None:
        add_OperatorServiceServicer_to_server(OperatorService(self.orchestrator, self.page), server)
        add_AuditServiceServicer_to_server(AuditService(self.orchestrator), server)
        self.members.serve_admins_on(server)
        add_HealthServicer_to_server(self.state, server)
        reflection.enable_server_reflection(names, server)


@asynccontextmanager
async def _showing(services: _Services) -> AsyncIterator[str | None]:
    """Serve the page inside the block, if there is one; its libraries take memory, so only then."""
    config = services.config
    if (web := config.web) is None:
        yield None
        return
    from orchestrator.web.guard import Guard  # noqa: PLC0415
    from orchestrator.web.server import serving_page  # noqa: PLC0415

    callers, refused = services.members.callers, services.orchestrator.refused_callers
    guard = Guard(config.federation, services.page, callers, services.quotas, refused)
    async with serving_page(web, config, services.orchestrator, guard, services.four_eyes) as url:
        yield url


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
