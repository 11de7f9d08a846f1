"""Takes mTLS away from one process, so that the transport below it can be measured.

Who is calling is then what the caller says. Nothing outside the benchmarks imports this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import patch

import grpc.aio

from common.ids import GatewayId

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from common.http2 import Http2Settings
    from common.tls import TlsFiles
    from orchestrator.auth import Context
    from orchestrator.config import OrchestratorConfig


def serve_plainly() -> None:
    """Let this process listen without TLS and believe every caller, until it ends."""
    patch("orchestrator.server._bind", _bind).start()
    patch("orchestrator.rpc_errors.check_caller", lambda *_: None).start()
    patch("orchestrator.gateway_service.calling_gateway", _as_it_says).start()


def dialling_plainly(name: str) -> AbstractContextManager[object]:
    """Let this process dial without TLS, as `name`, inside the block."""
    return patch("common.channel.open_channel", _opener(name))


def _bind(server: grpc.aio.Server, config: OrchestratorConfig) -> int:
    return server.add_insecure_port(config.address)


def _as_it_says(context: Context) -> GatewayId:
    said = dict(context.invocation_metadata() or ())
    return GatewayId(str(said["user-agent"]).split()[0])


def _opener(name: str) -> Callable[[str, TlsFiles, Http2Settings], grpc.aio.Channel]:
    def opened(address: str, _: TlsFiles, http2: Http2Settings) -> grpc.aio.Channel:
        options = (*http2.client_options(), ("grpc.primary_user_agent", name))
        return grpc.aio.insecure_channel(address, options=options)

    return opened
