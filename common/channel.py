"""Channels to an orchestrator, and its refusals turned back into our errors."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from common.errors import (
    ConflictError,
    FederationError,
    NotFound,
    PermissionRefused,
    RequestError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from common.tls import TlsFiles

CALL_TIMEOUT_S = 30.0
CALL_ENDED = (asyncio.InvalidStateError, grpc.aio.AioRpcError)  # what writing to one raises

# of both sides: frames as long as a chunk (16 KiB ones cost a quarter more), and no probe of the
# line, whose windows took 17 MiB for each upload
TRANSFER_OPTIONS = (
    ("grpc.http2.max_frame_size", (1 << 24) - 1),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
)
# gRPC's own retry is off: it reported OK for uploads of which chunks were missing
CLIENT_OPTIONS = (
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
    *TRANSFER_OPTIONS,
)
SERVER_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    *TRANSFER_OPTIONS,
)

_CLASSES: dict[grpc.StatusCode, type[FederationError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestError,
    grpc.StatusCode.OUT_OF_RANGE: RequestError,
    grpc.StatusCode.UNIMPLEMENTED: RequestError,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: PermissionRefused,
    grpc.StatusCode.UNAUTHENTICATED: PermissionRefused,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.ABORTED: ConflictError,
}


def open_channel(address: str, tls: TlsFiles) -> grpc.aio.Channel:
    """Return a channel to `address`, host:port, that presents this process's certificate."""
    return grpc.aio.secure_channel(address, tls.channel_credentials(), options=CLIENT_OPTIONS)


class Client:
    """A channel to an orchestrator that presents this process's certificate; `async with` it."""

    def __init__(self, address: str, tls: TlsFiles) -> None:
        """Prepare a channel to `address`, host:port; it connects with the first call."""
        self._address = address
        self._channel = open_channel(address, tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        """Turn gRPC's errors inside the block into ours."""
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise error_of(error, self._address) from error


def error_of(error: grpc.aio.AioRpcError, address: str) -> FederationError:
    """Return the error of ours that a failed call stands for.

    A status that says nothing of the request (the server is away, overloaded, or has a bug) is
    an `UnavailableError`: the same call may succeed later.
    """
    details = error.details() or error.code().name
    kind = _CLASSES.get(error.code())
    if kind is not None:
        return kind(details)
    if "hostname verification" in details.lower():
        hint = "the orchestrator's certificate is not for this host: issue it with `--host`"
        return UnavailableError(f"{address}: {hint} ({details})")
    if "handshake" in details.lower() or "certificate" in details.lower():
        hint = "the TLS handshake failed: check that both certificates are of one authority, "
        return UnavailableError(f"{address}: {hint}valid today and for this host ({details})")
    return UnavailableError(f"{address}: {details}")
