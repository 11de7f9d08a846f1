"""Our errors -> gRPC status: one table, one interceptor, which also checks who is calling."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from inspect import isasyncgenfunction
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from common.errors import (
    AbortedError,
    ConflictError,
    FederationError,
    NotFound,
    PermissionRefused,
    RequestError,
    UnavailableError,
)
from common.frames import packing, reading
from common.transfer import BodyTooLong, LengthMismatch
from common.wire_values import InvalidMessage
from orchestrator.auth import Unauthenticated, check_caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from orchestrator.auth import Context

    Handler = grpc.RpcMethodHandler[Any, Any]

log = structlog.get_logger()

CODES: dict[type[FederationError], grpc.StatusCode] = {  # the nearest ancestor counts
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    PermissionRefused: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    BodyTooLong: grpc.StatusCode.OUT_OF_RANGE,
    LengthMismatch: grpc.StatusCode.OUT_OF_RANGE,
    RequestError: grpc.StatusCode.INVALID_ARGUMENT,
    ConflictError: grpc.StatusCode.FAILED_PRECONDITION,
    AbortedError: grpc.StatusCode.ABORTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
}
DOMAIN = "fedgate"
LONGEST_TEXT = 800
DETAILS_KEY = "grpc-status-details-bin"


class NotAHeader(InvalidMessage):
    """A stream of a body does not begin with its declaration."""

    def __init__(self, message: str) -> None:
        super().__init__(message, field="part", problem="the first message must be a header")


class NotAChunk(InvalidMessage):
    """A stream of a body goes on with something else than its bytes."""

    def __init__(self, message: str) -> None:
        super().__init__(message, field="part", problem="after the header only chunks may come")


def status_of(error: FederationError) -> Status:
    """Return the status of `error`: its code, its sentence, its class and the field at fault."""
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    metadata = {"field": error.field} if error.field else {}
    info = ErrorInfo(reason=type(error).__name__, domain=DOMAIN, metadata=metadata)
    detail = AnyMessage()
    detail.Pack(info)
    return Status(code=code.value[0], message=_bounded(str(error)), details=[detail])


def _bounded(text: str) -> str:
    """Shorten what would not fit into the headers of an answer, in which all of it travels."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


class GuardingInterceptor(grpc.aio.ServerInterceptor):
    """Lets only the federation's members in, each to its service, and answers errors."""

    def __init__(self, federation: str) -> None:
        self._federation = federation

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the method's handler with the guard around it."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None  # no such method: gRPC answers UNIMPLEMENTED
        return self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        kind = next(kind for kind in kinds if getattr(handler, kind))
        behaviour, make = getattr(handler, kind), getattr(grpc, f"{kind}_rpc_method_handler")
        # a streaming method may also be a coroutine that writes to its context
        wrap = self._streaming if isasyncgenfunction(behaviour) else self._single
        parse: Any = handler.request_deserializer
        serialise: Any = handler.response_serializer
        guarded: Handler = make(
            wrap(behaviour, method),
            request_deserializer=reading(method, parse),
            response_serializer=packing(method, serialise),
        )
        return guarded

    def _single(self, behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
        async def guarded(request: Any, context: Context) -> Any:
            async with self._answering(context, method):
                return await behaviour(request, context)

        return guarded

    def _streaming(self, behaviour: Callable[..., Any], method: str) -> Callable[..., Any]:
        async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
            stream = behaviour(request, context)
            async with self._answering(context, method), aclosing(stream) as responses:
                async for response in responses:
                    yield response

        return guarded

    @asynccontextmanager
    async def _answering(self, context: Context, method: str) -> AsyncIterator[None]:
        try:
            check_caller(context.auth_context(), method, self._federation)
            yield
        except FederationError as error:
            log.info("refused", method=method, reason=type(error).__name__, why=str(error))
            await _abort(context, status_of(error))
        except grpc.aio.AbortError:
            raise
        except Exception:
            log.exception("bug", method=method)
            message = "the orchestrator has a bug; its log says more"
            await _abort(context, Status(code=grpc.StatusCode.INTERNAL.value[0], message=message))


async def _abort(context: Context, status: Status) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailers = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code, status.message, trailers)
