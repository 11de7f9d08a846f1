"""Serves the page, over TLS unless this machine alone can come to it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from common.errors import FederationError
from common.listening import write_atomically
from common.web.server import listening_at, serving
from orchestrator.web.app import app_of
from orchestrator.web.board import Board
from orchestrator.web.site import Site

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from common.tls import TlsFiles
    from orchestrator.config import OrchestratorConfig, WebSettings
    from orchestrator.four_eyes import FourEyes
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.web.guard import Guard
    from orchestrator.web.provider import ProviderSignIn

log = structlog.get_logger()


@asynccontextmanager
async def serving_page(
    web: WebSettings,
    config: OrchestratorConfig,
    orchestrator: Orchestrator,
    guard: Guard,
    four_eyes: FourEyes,
    by_provider: ProviderSignIn | None,
) -> AsyncIterator[str]:
    """Serve the page inside the block, which is lent its URL."""
    listener = listening_at(web.address)
    guard.sessions.url = _url(web, listener)
    closing = asyncio.Event()
    board = Board(orchestrator.runs, orchestrator.operations)
    app = app_of(Site(guard, orchestrator, board, four_eyes, closing, by_provider))
    context = None if web.is_loopback else _context(config.tls)
    async with serving(app, listener, closing, drain_s=config.drain_s, context=context):
        write_atomically(config.web_address_file, guard.sessions.url)
        log.info("page", url=guard.sessions.url)
        try:
            yield guard.sessions.url
        finally:
            config.web_address_file.unlink(missing_ok=True)
            guard.sessions.url = ""


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
