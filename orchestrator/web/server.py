"""Serves the page in the orchestrator's own event loop, and drains it as the other doors are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager, contextmanager
from math import ceil
from typing import TYPE_CHECKING

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from common.errors import FederationError
from common.listening import AddressTaken, write_atomically
from orchestrator.web.app import app_of
from orchestrator.web.board import Board
from orchestrator.web.guard import Guard
from orchestrator.web.site import Site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from common.tls import TlsFiles
    from orchestrator.config import OrchestratorConfig, WebSettings
    from orchestrator.four_eyes import FourEyes
    from orchestrator.orchestrator import Orchestrator

log = structlog.get_logger()

MOST_CONNECTIONS = 512
LONGEST_HEAD = 16 << 10  # bytes of a request before its body
FIRST_S = 10.0  # from a connection to the end of its first request's head


@asynccontextmanager
async def serving_page(
    web: WebSettings,
    config: OrchestratorConfig,
    orchestrator: Orchestrator,
    guard: Guard,
    four_eyes: FourEyes,
) -> AsyncIterator[str]:
    """Serve the page inside the block, which is lent its URL."""
    listener = _listening_at(web.address)
    guard.sessions.url = _url(web, listener)
    closing = asyncio.Event()
    board = Board(orchestrator.runs, orchestrator.operations)
    server = _server(config, web, Site(guard, orchestrator, board, four_eyes, closing))
    serving = asyncio.create_task(server.serve([listener]), name="page")
    write_atomically(config.web_address_file, guard.sessions.url)
    log.info("page", url=guard.sessions.url)
    try:
        yield guard.sessions.url
    finally:
        config.web_address_file.unlink(missing_ok=True)
        guard.sessions.url = ""
        closing.set()
        server.should_exit = True
        await serving


def _server(config: OrchestratorConfig, web: WebSettings, site: Site) -> uvicorn.Server:
    settings = uvicorn.Config(
        app_of(site),
        http=_Impatient,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        log_level="error",  # what strangers send amiss is no news
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_graceful_shutdown=max(1, ceil(config.drain_s)),
    )
    settings.load()
    if not web.is_loopback:
        settings.ssl = _context(config.tls)
    return _Server(settings)


class _Server(uvicorn.Server):
    """Leaves signals to the orchestrator."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Impatient(H11Protocol):
    """Closes connections on which nobody asks for anything."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request its time."""
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(FIRST_S, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


def _listening_at(address: str) -> socket.socket:
    """Return a socket that is bound to host:port; raise AddressTaken."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(found[4][:2], family=found[0])
    except (OSError, OverflowError) as error:
        raise AddressTaken(address, "web.address") from error
    listener.setblocking(False)
    return listener


def _url(web: WebSettings, listener: socket.socket) -> str:
    """Return how browsers come here, with the port that was taken."""
    if web.url is not None:
        return web.url
    return f"{web.own_url.rpartition(':')[0]}:{listener.getsockname()[1]}"


def _context(files: TlsFiles) -> ssl.SSLContext:
    """Return what the page is served with; newer files count from the next handshake on.

    Raises:
        CertificateFileMissing: a file is not there, or is none.
    """
    known, context = files.stamp(), _read(files)

    def newest(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        nonlocal known, context
        try:
            if (stamp := files.stamp()) != known:
                known, context = stamp, _read(files)
        except (FederationError, OSError) as error:
            log.warning("page_certificate_not_swapped", why=str(error))
        connection.context = context

    context.sni_callback = newest
    return context


def _read(files: TlsFiles) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_cert_chain(files.certificate, files.key)
    return made
