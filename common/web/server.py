"""Serves a page in the process's own event loop, and drains it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from math import ceil
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from common.listening import AddressTaken

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import ASGIApp

MOST_CONNECTIONS = 512
LONGEST_HEAD = 16 << 10  # bytes of a request before its body
FIRST_S = 10.0  # from a connection to the end of its first request's head


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listener: socket.socket,
    closing: asyncio.Event,
    *,
    drain_s: float,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[None]:
    """Serve `app` inside the block; `closing` is set at its end, before what is asked drains."""
    settings = uvicorn.Config(
        app,
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
        timeout_graceful_shutdown=max(1, ceil(drain_s)),
    )
    settings.load()
    settings.ssl = context
    server = _Server(settings)
    task = asyncio.create_task(server.serve([listener]), name="page")
    try:
        yield
    finally:
        closing.set()
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """Leaves signals to the process."""

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


def listening_at(address: str) -> socket.socket:
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
