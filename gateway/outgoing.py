"""The one way out: a channel on which a message becomes bytes only if the manifest lists all of it.

gRPC logs what its own serialisers raise and goes on with nothing, so a message is checked and made
into bytes before gRPC has it: a call that must not go out is not begun, and whoever made it gets an
error of ours. There is no way to add metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from google.protobuf.unknown_fields import UnknownFieldSet

from common.channel import CALL_ENDED
from common.errors import RequestError
from common.frames import GO_AHEAD, pack, reading
from common.protocol import Chunk
from gateway.egress import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio
    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
    from google.protobuf.message import Message

    from gateway.egress import Manifest
    from gateway.egress_tally import Tally

PACKAGE = "federation.v1."
CHUNK = "SubmitUpdateRequest.chunk"  # the one kind of chunk that a gateway sends


class NotInManifest(RequestError):
    """Something would leave that the egress manifest does not list; nothing of it was sent."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(
            f"{path} {problem}: it was not sent; `fedgate-gateway egress` lists what may leave"
        )
        self.field = path


def serialise(message: Message, manifest: Manifest = MANIFEST, tally: Tally | None = None) -> bytes:
    """Return the bytes of `message`; raise NotInManifest, which names no value, unless all may go.

    What may go: a message that a gateway sends, every field that is set in it listed, every value
    within its field's rule, and no field that is unknown to the contract.
    """
    name = message.DESCRIPTOR.full_name.removeprefix(PACKAGE)
    if name not in {field.partition(".")[0] for field in manifest}:
        raise NotInManifest(name, "is not a message that a gateway sends")
    _check(message, name, manifest)
    data = message.SerializeToString()
    if tally is not None:
        _count(message, name, tally)
    return data


def _count(message: Message, path: str, tally: Tally) -> None:
    """Count every field that is set, with the bytes that it takes."""
    for field, value in message.ListFields():
        here = f"{path}.{field.name}"
        if is_nested(field):
            for each in value if field.is_repeated else (value,):
                _count(each, here, tally)
            continue
        alone = type(message)()
        if field.is_repeated:
            getattr(alone, field.name).extend(value)
        else:
            setattr(alone, field.name, value)
        tally.count(here, len(value) if field.is_repeated else 1, alone.ByteSize())


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
    _check_entry(_name_of(field.enum_type, value) if field.enum_type else value, path, manifest)


def _check_entry(value: Any, path: str, manifest: Manifest) -> None:
    entry = manifest.get(path)
    if entry is None:
        raise NotInManifest(path, "is not in the egress manifest")
    if not entry.rule.admits(value):
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

    def __init__(
        self,
        channel: grpc.aio.Channel,
        manifest: Manifest = MANIFEST,
        tally: Tally | None = None,
    ) -> None:
        """Let pass over `channel` what `manifest` lists, and have `tally` count it."""
        self._channel = channel
        self._manifest = manifest
        self._tally = tally

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
        read = reading(method, response_deserializer)
        return self._single(self._channel.unary_stream(method, response_deserializer=read))

    def stream_unary(
        self, method: str, *, response_deserializer: Callable[[bytes], Any], **_: Any
    ) -> Callable[..., OutgoingStream]:
        """Return a call of a stream of requests, begun with the first, and one response."""
        call: Any = self._channel.stream_unary(method, response_deserializer=response_deserializer)

        def begun(first: Message, *, timeout: float | None = None) -> OutgoingStream:
            data = serialise(first, self._manifest, self._tally)
            start = lambda: call(timeout=timeout)  # noqa: E731
            return OutgoingStream(data, start, self._manifest, self._tally)

        return begun

    def _single(self, call: Any) -> Callable[..., Any]:
        def guarded(request: Message, *, timeout: float | None = None) -> Any:
            return call(serialise(request, self._manifest, self._tally), timeout=timeout)

        return guarded


class OutgoingStream:
    """A stream of requests of which nothing goes out unchecked; `async with` it."""

    def __init__(
        self,
        first: bytes,
        start: Callable[[], Any],
        manifest: Manifest,
        tally: Tally | None = None,
    ) -> None:
        """Begin with `first` the call that `start` makes."""
        self._tally = tally
        self._first = first
        self._start = start
        self._manifest = manifest

    async def __aenter__(self) -> Self:
        self._call = self._start()
        await self._write(self._first)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()  # nothing, where it has ended

    async def may_go_ahead(self) -> bool:
        """Return, once it is known, whether the orchestrator wants what follows.

        It lets a few bodies come at a time: bytes that were sent before would wait in its memory.
        The wait has no end but the call's: of a thousand gateways the last waits for all others.
        """
        said = await self._call.initial_metadata()
        return GO_AHEAD in said  # else it was answered; `response` says how

    async def send(self, request: Message | Chunk) -> bool:
        """Send one more; return whether more can follow, which the call's end forbids.

        Raises:
            NotInManifest: it may not leave.
        """
        return await self._write(self._bytes_of(request))

    async def response(self) -> Any:
        """Return the response to all that was sent; raise gRPC's error."""
        await self._call.done_writing()
        return await self._call

    async def _write(self, data: bytes) -> bool:
        try:
            await self._call.write(data)
        except CALL_ENDED:
            return False  # it was answered; `response` says how
        return True

    def _bytes_of(self, request: Message | Chunk) -> bytes:
        if not isinstance(request, Chunk):
            return serialise(request, self._manifest, self._tally)
        for name, value in (("offset", request.offset), ("data", request.data)):
            path = f"{CHUNK}.{name}"
            _check_entry(value, path, self._manifest)
        packed = pack(request)
        if self._tally is not None:
            self._tally.count(f"{CHUNK}.data", 1, len(request.data))
            self._tally.count(f"{CHUNK}.offset", 1, len(packed) - len(request.data))
        return packed
