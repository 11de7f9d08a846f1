"""Our errors -> gRPC status: one table, one interceptor, which also asks who calls how often."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from inspect import isasyncgenfunction
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from common.audit import Action
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
from common.frames import OF_BODIES, packing, reading
from common.transfer import BodyTooLong, LengthMismatch
from common.wire_values import InvalidMessage
from orchestrator.auth import RoleRefused, known, presented, set_call
from orchestrator.callers import Unauthenticated
from orchestrator.tally import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from google.protobuf.message import Message

    from orchestrator.auth import Context
    from orchestrator.callers import OpenCall
    from orchestrator.doors import Door
    from orchestrator.quotas import Quotas, Use
    from orchestrator.refusals import Refusals

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
    LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
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


class NotAMessage(InvalidMessage):
    """The bytes of a request are not its message."""

    def __init__(self, method: str) -> None:
        super().__init__(method, field="request", problem="the bytes are not a message of it")


def status_of(error: FederationError) -> Status:
    """Return the status of `error`: code, sentence, class, field at fault, how long to wait."""
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    metadata = {"field": error.field} if error.field else {}
    info = ErrorInfo(reason=type(error).__name__, domain=DOMAIN, metadata=metadata)
    details = [_packed(info)]
    if isinstance(error, LimitReached):
        asked = RetryInfo()
        asked.retry_delay.FromNanoseconds(round(error.wait_s * 1e9))
        details.append(_packed(asked))
    return Status(code=code.value[0], message=_bounded(str(error)), details=details)


def _packed(message: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _bounded(text: str) -> str:
    """Shorten what would not fit into the headers of an answer, in which all of it travels."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


class GuardingInterceptor(grpc.aio.ServerInterceptor):
    """Lets in whom `door` admits, within their quotas, before any handler runs; answers errors."""

    def __init__(
        self, door: Door, quotas: Quotas, refused: Refusals, tally: Tally | None = None
    ) -> None:
        """Put on record in `refused` whoever may not make their call; count all in `tally`."""
        self._door = door
        self._quotas = quotas
        self._refused = refused
        self._tally = tally or Tally()

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
        """Guard a handler; every one reads a stream, so that nothing is read before the guard."""
        kinds = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        behaviour = next(getattr(handler, kind) for kind in kinds if getattr(handler, kind))
        if handler.response_streaming:
            make: Any = grpc.stream_stream_rpc_method_handler
        else:
            make = grpc.stream_unary_rpc_method_handler
        # a streaming method may also be a coroutine that writes to its context
        wrap = self._streaming if isasyncgenfunction(behaviour) else self._single
        parse: Any = handler.request_deserializer
        serialise: Any = handler.response_serializer
        guarded: Handler = make(
            wrap(behaviour, method, reads_many=handler.request_streaming),
            request_deserializer=strictly(
                method, reading(method, parse) if handler.request_streaming else parse
            ),
            response_serializer=packing(method, serialise),
        )
        return guarded

    def _single(
        self, behaviour: Callable[..., Any], method: str, *, reads_many: bool
    ) -> Callable[..., Any]:
        brings_body = reads_many and method.rpartition("/")[2] in OF_BODIES

        async def guarded(requests: Any, context: Context) -> Any:
            async with (
                self._answering(context, method, brings_body=brings_body) as (call, use),
                self._given(use, requests, method, reads_many=reads_many) as given,
            ):
                if not reads_many:
                    with self._on_record(context, method):
                        self._door.look_at(call, method, given)
                with call.outside():
                    pass  # its caller may have been turned away while the message came
                return await behaviour(given, context)

        return guarded

    def _streaming(
        self, behaviour: Callable[..., Any], method: str, *, reads_many: bool
    ) -> Callable[..., Any]:
        async def guarded(requests: Any, context: Context) -> AsyncIterator[Any]:
            async with (
                self._answering(context, method, brings_body=False) as (call, use),
                self._given(use, requests, method, reads_many=reads_many) as given,
                aclosing(behaviour(given, context)) as responses,
            ):
                async for response in responses:
                    with call.outside():
                        yield response

        return guarded

    @asynccontextmanager
    async def _admitted(self, context: Context, method: str) -> AsyncIterator[OpenCall]:
        """Lend a call that the door lets in; another one is on record, and counts as well."""
        async with AsyncExitStack() as stack:
            try:
                with self._on_record(context, method):
                    call = await stack.enter_async_context(self._door.admit(context, method))
            except (PermissionRefused, Unauthenticated):
                self._quotas.count(known(context.auth_context()))
                raise
            yield call

    @contextmanager
    def _on_record(self, context: Context, method: str) -> Iterator[None]:
        """Put on record who is turned away inside the block."""
        try:
            yield
        except (PermissionRefused, Unauthenticated) as error:
            name = error.name if isinstance(error, RoleRefused) else ""
            who, reason = name or presented(context.auth_context()), type(error).__name__
            self._refused.note(who, Action.CALL, {"method": method, "reason": reason})
            raise

    @asynccontextmanager
    async def _given(
        self, use: Use, requests: Any, method: str, *, reads_many: bool
    ) -> AsyncIterator[Any]:
        """Lend what a method's behaviour is given: its message, or a stream of them."""
        if not reads_many:
            yield await self._quotas.only_message(use, requests, method)
            return
        async with aclosing(self._quotas.messages(use, requests)) as messages:
            yield messages

    @asynccontextmanager
    async def _answering(
        self, context: Context, method: str, *, brings_body: bool
    ) -> AsyncIterator[tuple[OpenCall, Use]]:
        """Lend the call and what its caller has under way, if it is let in; answer errors."""
        self._tally.open_calls += 1
        try:
            async with AsyncExitStack() as stack:
                call = await stack.enter_async_context(self._admitted(context, method))
                set_call(call)
                use = self._quotas.call(call.caller, brings_body=brings_body)
                yield call, stack.enter_context(use)
        except FederationError as error:
            self._tally.refused_calls[type(error).__name__] += 1
            if not isinstance(error, LimitReached):  # of a flood the quotas log a part
                log.info("refused", method=method, reason=type(error).__name__, why=str(error))
            await _abort(context, status_of(error))
        except grpc.aio.AbortError:
            raise
        except Exception:
            log.exception("bug", method=method)
            message = "the orchestrator has a bug; its log says more"
            await _abort(context, Status(code=grpc.StatusCode.INTERNAL.value[0], message=message))
        finally:
            self._tally.open_calls -= 1


def strictly(method: str, parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return what reads a method's messages, or raises NotAMessage."""

    def parsed(data: bytes) -> Any:
        try:
            return parse(data)
        except DecodeError as error:
            raise NotAMessage(method) from error

    return parsed


async def _abort(context: Context, status: Status) -> None:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailers = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code, status.message, trailers)
