"""The one way out: a channel on which a message becomes bytes only if the manifest lists all of it.

gRPC logs what its own serialisers raise and goes on with nothing, so a message is checked and made
into bytes before gRPC has it: a call that must not go out is not begun, and whoever made it gets an
error of ours. There is no way to add metadata.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from google.protobuf.unknown_fields import UnknownFieldSet

from common.errors import RequestError
from gateway.egress import MANIFEST

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine

    import grpc.aio
    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
    from google.protobuf.message import Message

    from gateway.egress import Manifest

PACKAGE = "federation.v1."


class NotInManifest(RequestError):
    """Something would leave that the egress manifest does not list; nothing of it was sent."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"{path} {problem}: it was not sent; `fedgate-gateway egress` lists what may leave"
        )
        self.field = path


def serialise(message: Message, manifest: Manifest = MANIFEST) -> bytes:
    """Return the bytes of `message`; raise NotInManifest, which names no value, unless all may go.

    What may go: a message that a gateway sends, every field that is set in it listed, every value
    within its field's rule, and no field that is unknown to the contract.
    """
    name = message.DESCRIPTOR.full_name.removeprefix(PACKAGE)
    if name not in {field.partition(".")[0] for field in manifest}:
        raise NotInManifest(name, "is not a message that a gateway sends")
    _check(message, name, manifest)
    return message.SerializeToString()


def _check(message: Message, path: str, manifest: Manifest) -> None:
    if len(UnknownFieldSet(message)):
        raise NotInManifest(path, "holds a field that the contract does not know")
    for field, value in message.ListFields():
        here = f"{path}.{field.name}"
        for each in value if field.is_repeated else (value,):
            if is_nested(field):
                _check(each, here, manifest)
            else:
                _check_value(field, each, here, manifest)


def _check_value(field: FieldDescriptor, value: Any, path: str, manifest: Manifest) -> None:
    entry = manifest.get(path)
    if entry is None:
        raise NotInManifest(path, "is not in the egress manifest")
    if not entry.rule.admits(_name_of(field.enum_type, value) if field.enum_type else value):
        raise NotInManifest(path, f"must be {entry.rule.words}")


def is_nested(field: FieldDescriptor) -> bool:
    """Whether a field holds a message of its own; a map counts as one value."""
    nested = field.message_type
    return nested is not None and not nested.GetOptions().map_entry


def _name_of(enum: EnumDescriptor, number: int) -> str | None:
    """Return the name of an enumeration's value without its prefix, or None if it has none."""
    known = enum.values_by_number
    prefix = known[0].name.removesuffix("UNSPECIFIED")
    return known[number].name.removeprefix(prefix) if number in known else None


class GuardedChannel:
    """What a gateway's stub calls through; it knows the kinds of calls that a gateway makes.

    The methods are gRPC's; the serialisers that a stub offers are not used.
    """

    def __init__(self, channel: grpc.aio.Channel, manifest: Manifest = MANIFEST) -> None:
        """Let pass over `channel` what `manifest` lists."""
        self._channel = channel
        self._manifest = manifest

    def unary_unary(
        self, method: str, *, response_deserializer: Callable[[bytes], Any], **_: Any
    ) -> Callable[..., Any]:
        """Return a call of one request and one response."""
        return self._single(
            self._channel.unary_unary(method, response_deserializer=response_deserializer)
        )

    def unary_stream(
        self, method: str, *, response_deserializer: Callable[[bytes], Any], **_: Any
    ) -> Callable[..., Any]:
        """Return a call of one request and a stream of responses."""
        return self._single(
            self._channel.unary_stream(method, response_deserializer=response_deserializer)
        )

    def stream_unary(
        self, method: str, *, response_deserializer: Callable[[bytes], Any], **_: Any
    ) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return a call of a stream of requests and one response."""
        call: Any = self._channel.stream_unary(method, response_deserializer=response_deserializer)

        def guarded(
            requests: AsyncIterable[Message], *, timeout: float | None = None
        ) -> Coroutine[Any, Any, Any]:
            failures: list[Exception] = []
            return _answer(call(self._checked(requests, failures), timeout=timeout), failures)

        return guarded

    def _single(self, call: Any) -> Callable[..., Any]:
        def guarded(request: Message, *, timeout: float | None = None) -> Any:
            return call(serialise(request, self._manifest), timeout=timeout)

        return guarded

    async def _checked(
        self, requests: AsyncIterable[Message], failures: list[Exception]
    ) -> AsyncIterator[bytes]:
        """Yield the requests as bytes; leave what ends them in `failures`."""
        try:
            async for request in requests:
                yield serialise(request, self._manifest)
        except Exception as error:
            failures.append(error)
            raise


async def _answer(call: Awaitable[Any], failures: list[Exception]) -> Any:
    """Return the response, or raise what ended the stream of requests.

    gRPC takes an error in that stream for a call that was cancelled, and forgets it.
    """
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if failures and task is not None and not task.cancelling():
            raise failures[0] from None
        raise
