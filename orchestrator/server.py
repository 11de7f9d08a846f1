"""Build everything, serve, drain."""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager
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
from common.channel import SERVER_OPTIONS
from common.clock import SystemClock
from common.errors import UnavailableError
from orchestrator.auth import ROLES
from orchestrator.gateway_service import GatewayService
from orchestrator.operator_service import OperatorService
from orchestrator.orchestrator import Orchestrator
from orchestrator.rpc_errors import GuardingInterceptor
from protos.federation.v1.gateway_pb2_grpc import add_GatewayServiceServicer_to_server
from protos.federation.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.clock import Clock
    from orchestrator.config import Http2Settings, OrchestratorConfig

log = structlog.get_logger()

_SERVING = health_pb2.HealthCheckResponse.SERVING


class AddressTaken(UnavailableError):
    """The server cannot listen where it should."""

    def __init__(self, address: str) -> None:
        super().__init__(f"cannot listen on {address}: does another process? Set `address`")


@dataclass(frozen=True)
class Listening:
    """A server that has begun to serve."""

    address: str  # host:port, with the port that was taken
    orchestrator: Orchestrator


async def serve(config: OrchestratorConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until another orchestrator takes over.

    Args:
        config: the settings.
        ready: called with the address once calls are answered.

    Raises:
        FederationError: it cannot serve, or had to stop; the text says why.
    """
    logs.configure(config.log.style, verbose=config.log.verbose)
    keep_on_the_heap(16 * MIB)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening(config) as server:
        if ready is not None:
            ready(server.address)
        runs = server.orchestrator.runs
        await _first(stop, runs.halted)
        if runs.failure is not None:
            raise runs.failure


@asynccontextmanager
async def listening(
    config: OrchestratorConfig, *, clock: Clock | None = None
) -> AsyncIterator[Listening]:
    """Serve inside the block; at its end drain, then let everything go."""
    orchestrator = Orchestrator(
        config.state,
        config.database_url,
        federation=config.federation,
        clock=clock or SystemClock(),
        limits=config.limits,
    )
    state = health.aio.HealthServicer()
    server, probes = _server(config, orchestrator, state), _probe_server(config, state)
    try:
        port = _bind(server, config)
        orchestrator.start(restart_grace_s=config.restart_grace_s)
        for service in ROLES:
            await state.set(service, _SERVING)
        await asyncio.gather(server.start(), probes.start())
        address = f"{config.address.rpartition(':')[0]}:{port}"
        _write_atomically(config.address_file, address)
        log.info("serving", address=address, health=str(config.health_socket_path))
        yield Listening(address, orchestrator)
    finally:
        config.address_file.unlink(missing_ok=True)
        await state.enter_graceful_shutdown()
        orchestrator.sessions.close()
        await server.stop(config.drain_s)
        await orchestrator.close()
        await probes.stop(None)
        log.info("stopped")


def _server(
    config: OrchestratorConfig, orchestrator: Orchestrator, state: health.aio.HealthServicer
) -> grpc.aio.Server:
    guard = GuardingInterceptor(config.federation)
    server = grpc.aio.server(interceptors=[guard], options=_options(config.http2))
    add_GatewayServiceServicer_to_server(GatewayService(orchestrator), server)
    add_OperatorServiceServicer_to_server(OperatorService(orchestrator), server)
    add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection(tuple(ROLES), server)
    return server


def _probe_server(config: OrchestratorConfig, state: health.aio.HealthServicer) -> grpc.aio.Server:
    """Return a server that answers health alone, to this machine alone."""
    probes = grpc.aio.server()
    add_HealthServicer_to_server(state, probes)
    probes.add_insecure_port(f"unix:{config.health_socket_path.absolute()}")
    return probes


def _bind(server: grpc.aio.Server, config: OrchestratorConfig) -> int:
    credentials = config.tls.server_credentials()
    try:
        return server.add_secure_port(config.address, credentials)
    except RuntimeError as error:
        raise AddressTaken(config.address) from error


def _options(http2: Http2Settings) -> list[tuple[str, int]]:
    """Return gRPC's settings; without its window probe 64 uploads take a fifth of the memory."""
    ours = {
        "grpc.keepalive_time_ms": int(1000 * http2.keepalive_s),
        "grpc.keepalive_timeout_ms": int(1000 * http2.ping_timeout_s),
        "grpc.http2.ping_timeout_ms": int(1000 * http2.ping_timeout_s),
        "grpc.http2.lookahead_bytes": http2.window_bytes,
    }
    return list({**dict(SERVER_OPTIONS), **ours}.items())


def _write_atomically(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


async def _first(*events: asyncio.Event) -> None:
    """Return once one of `events` is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
