"""Any method called as its descriptor says, with an empty request, and how that ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from google.protobuf.descriptor_pool import Default as Descriptors
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status.rpc_status import from_call

Code = grpc.StatusCode
REFUSALS = {Code.PERMISSION_DENIED, Code.UNAUTHENTICATED}


@dataclass(frozen=True)
class Outcome:
    """How a call ended: its status, and the class of the refusal."""

    code: grpc.StatusCode
    reason: str = ""


async def outcome_of(channel: grpc.aio.Channel, path: str) -> Outcome:
    """Call a method with an empty request, as its descriptor says; stop at the first answer."""
    method = Descriptors().FindMethodByName(path.strip("/").replace("/", "."))
    requests = iter([b""]) if method.client_streaming else b""
    kind = f"{_kind(method.client_streaming)}_{_kind(method.server_streaming)}"
    call = getattr(channel, kind)(path)(requests, timeout=10)
    try:
        await (call.read() if method.server_streaming else call)
        if not method.server_streaming or not call.done():
            return Outcome(Code.OK)
        return Outcome(await call.code())
    except grpc.aio.AioRpcError as error:
        info, status = ErrorInfo(), from_call(_Call(error))
        if status is not None:
            status.details[0].Unpack(info)
        return Outcome(error.code(), info.reason)
    finally:
        call.cancel()


def _kind(streams: bool) -> str:  # noqa: FBT001 - of the descriptor
    return "stream" if streams else "unary"


class _Call:
    """What `from_call` wants to know of a call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code, self.details = error.code, error.details
        self.trailing_metadata = error.trailing_metadata


async def refused_of(channel: grpc.aio.Channel, paths: Iterable[str]) -> dict[str, str]:
    """Return the methods that refuse this caller, each with the class of its refusal."""
    paths = list(paths)
    outcomes = await asyncio.gather(*(outcome_of(channel, path) for path in paths))
    ended = zip(paths, outcomes, strict=True)
    return {path: outcome.reason for path, outcome in ended if outcome.code in REFUSALS}
