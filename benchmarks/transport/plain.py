"""Takes mTLS away from one process, so that the transport below it can be measured.

Who is calling is then what the caller says. Nothing outside the benchmarks imports this.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING
from unittest.mock import patch

import grpc.aio

from common.ids import GatewayId
from common.tls import Identity, Role
from orchestrator.callers import OpenCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from common.http2 import Http2Settings
    from common.tls import TlsFiles
    from orchestrator.auth import Context


_CALLS = count()


def serve_plainly() -> None:
    """Let this process listen without TLS and believe every caller, until it ends."""
    patch("orchestrator.server.bind", _bind).start()
    patch("orchestrator.doors.MembersDoor.admit", _admit).start()
    patch("orchestrator.gateway_service.calling_gateway", _as_it_says).start()
    patch("orchestrator.gateway_service.signed_by_caller", lambda *_: None).start()


def dialling_plainly(name: str) -> AbstractContextManager[object]:
    """Let this process dial without TLS, as `name`, inside the block."""
    return patch("common.channel.open_channel", _opener(name))


def _bind(server: grpc.aio.Server, address: str, _: grpc.ServerCredentials) -> str:
    port = server.add_insecure_port(address)
    return f"{address.rpartition(':')[0]}:{port}"


@asynccontextmanager
async def _admit(*_: object) -> AsyncIterator[OpenCall]:
    """Take each call for somebody else's: no caller reaches a limit."""
    yield OpenCall(Identity("plain", Role.GATEWAY, str(next(_CALLS))))


def _as_it_says(context: Context) -> GatewayId:
    said = dict(context.invocation_metadata() or ())
    return GatewayId(str(said["user-agent"]).split()[0])


def _opener(name: str) -> Callable[[str, TlsFiles, Http2Settings], grpc.aio.Channel]:
    def opened(address: str, _: TlsFiles, http2: Http2Settings) -> grpc.aio.Channel:
        options = (*http2.client_options(), ("grpc.primary_user_agent", name))
        return grpc.aio.insecure_channel(address, options=options)

    return opened
