"""Channels to an orchestrator, and its refusals turned back into our errors."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from common.clock import SystemClock
from common.config import each_of
from common.dates import date_in
from common.errors import (
    AbortedError,
    ConflictError,
    FederationError,
    LimitReached,
    NotFound,
    PermissionRefused,
    RequestError,
    UnavailableError,
)
from common.http2 import CONNECT_TIMEOUT_S, DEFAULT_HTTP2
from common.tls import CertificateOutOfDate
from common.unreachable import NotLetIn, unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from typing import Any, Self, TypeAlias

    from common.http2 import Http2Settings
    from common.tls import Credentials

    Addresses: TypeAlias = str | Sequence[str]  # one, or several in the order they are tried

CALL_TIMEOUT_S = 30.0
LEAVING_S = 86400.0  # that a call may still take on a connection that was left for another
CALL_ENDED = (asyncio.InvalidStateError, grpc.aio.AioRpcError)  # what writing to one raises
DETAILS_KEY = "grpc-status-details-bin"
_SAME_SERVER = (AbortedError, LimitReached)  # says to ask the one that answered, no other
_SETTLED = {grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE}

_CLASSES: dict[grpc.StatusCode, type[FederationError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: RequestError,
    grpc.StatusCode.OUT_OF_RANGE: RequestError,
    grpc.StatusCode.UNIMPLEMENTED: RequestError,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: PermissionRefused,
    grpc.StatusCode.UNAUTHENTICATED: PermissionRefused,
    grpc.StatusCode.FAILED_PRECONDITION: ConflictError,
    grpc.StatusCode.ALREADY_EXISTS: ConflictError,
    grpc.StatusCode.ABORTED: AbortedError,
}


def open_channel(
    address: str, tls: Credentials, http2: Http2Settings = DEFAULT_HTTP2
) -> grpc.aio.Channel:
    """Return a channel to `address`, host:port, whose calls say who makes them."""
    options = http2.client_options()
    return grpc.aio.secure_channel(address, tls.channel_credentials(), options=options)


class Client:
    """A channel to an orchestrator whose calls say who makes them; `async with` it.

    Of several addresses it calls the first that answers, and after an `UnavailableError` the next,
    unless that is an `AbortedError` or `LimitReached`: one of them leads, the others stand by and
    do not listen.
    """

    def __init__(
        self, addresses: Addresses, tls: Credentials, http2: Http2Settings = DEFAULT_HTTP2
    ) -> None:
        """Prepare channels to `addresses`, each host:port; they connect when they are called."""
        self._addresses = each_of(addresses)
        self._tls, self._http2 = tls, http2
        self.date: datetime | None = None  # that the newest answer with one has named
        self._leaving: set[asyncio.Task[None]] = set()
        self._channels = self._opened()
        self._turn(0)

    async def __aenter__(self) -> Self:
        for place in range(len(self._channels)) if len(self._channels) > 1 else ():
            if await _connects(self._channels[place]):
                self._turn(place)
                break
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()
        for leaving in tuple(self._leaving):
            leaving.cancel()
            await asyncio.wait([leaving])

    def redial(self) -> None:
        """Connect anew, with the files as they are now; calls under way end where they began."""
        for channel in self._channels:
            leaving = asyncio.create_task(channel.close(LEAVING_S), name="leaving")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._channels = self._opened()
        self._turn(self._place)

    def _opened(self) -> tuple[grpc.aio.Channel, ...]:
        return tuple(open_channel(each, self._tls, self._http2) for each in self._addresses)

    def _turn(self, place: int) -> None:
        """Call that address from now on."""
        self._place = place
        self._address, self._channel = self._addresses[place], self._channels[place]
        self._use(self._channel)

    def _own_fault(self) -> CertificateOutOfDate | None:
        """Return that the own certificate is out of date, if it is."""
        try:
            self._tls.check_in_force(SystemClock().wall())
        except CertificateOutOfDate as error:
            return error
        except FederationError:
            return None  # files that are being replaced: what the call ended with stands
        return None

    async def _dated(self, call: Any) -> Any:
        """Return what a call answers, its date kept."""
        response = await call
        self.date = date_in(await call.trailing_metadata())
        return response

    def _use(self, channel: grpc.aio.Channel) -> None:
        """Make the stub that calls through `channel`."""

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        """Turn gRPC's errors inside the block into ours."""
        place = self._place
        try:
            yield
        except grpc.aio.AioRpcError as error:
            ours = error_of(error, self._addresses[place])
            if isinstance(ours, NotLetIn):
                ours = self._own_fault() or ours
            following = (place + 1) % len(self._addresses)
            is_of_no_use = isinstance(ours, UnavailableError) and not isinstance(ours, _SAME_SERVER)
            if is_of_no_use and self._place == place != following:
                self._turn(following)
            raise ours from error


async def _connects(channel: grpc.aio.Channel) -> bool:
    """Return whether there is a connection, within CONNECT_TIMEOUT_S."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            state = channel.get_state(try_to_connect=True)
            while state not in _SETTLED:
                await channel.wait_for_state_change(state)
                state = channel.get_state()
    except TimeoutError:
        return False
    return state is grpc.ChannelConnectivity.READY


def error_of(error: grpc.aio.AioRpcError, address: str) -> FederationError:
    """Return the error of ours that a failed call stands for.

    A status that says nothing of the request (the server is away, overloaded, or has a bug) is
    an `UnavailableError`: the same call may succeed later.
    """
    details = error.details() or error.code().name
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return LimitReached(details, wait_s=_asked_wait_s(error))
    kind = _CLASSES.get(error.code())
    if kind is not None:
        return kind(details)
    return unreachable(address, details, os.environ)


def _asked_wait_s(error: grpc.aio.AioRpcError) -> float:
    """Return how long the server asks to wait, 0 where it does not say."""
    status, asked = Status(), RetryInfo()
    try:
        status.ParseFromString(dict(error.trailing_metadata() or ()).get(DETAILS_KEY, b""))
        for detail in status.details:
            if detail.Unpack(asked):
                asked_s: float = asked.retry_delay.seconds + asked.retry_delay.nanos / 1e9
                return max(0.0, asked_s)
    except (DecodeError, TypeError):
        pass  # not a status of ours: nothing is asked
    return 0.0
