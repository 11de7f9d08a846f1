"""A gateway's client that remembers what it sent and what it was told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from common.protocol import Chunk
from common.tls import TlsFiles
from gateway.client import GrpcClient
from gateway.egress import MANIFEST
from gateway.egress_rules import EgressClass
from gateway.outgoing import GuardedChannel, is_nested
from protos.federation.v1 import audit_pb2
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1.audit_pb2_grpc import AuditServiceStub
from protos.federation.v1.gateway_pb2_grpc import GatewayServiceStub

ECHOES = {  # what the orchestrator gave out a moment before: drawn by it, or made of updates
    "WatchRequest.lease",
    "FetchWeightsRequest.digest",
    "SubmitUpdateRequest.header.parent",
}


@dataclass
class Record:
    """All that went to gRPC, in order, and every word that came back."""

    sent: list[tuple[str, bytes]] = field(default_factory=list)  # method, message
    heard: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)  # where the audit log was said to stand

    def messages(self) -> Iterator[tuple[str, Message]]:
        """Yield what was sent but for looks at the audit log, which `looks` tells."""
        for method, data in self.sent:
            if method != "GetCheckpoint":
                yield method, getattr(pb, f"{method}Request").FromString(data)

    def looks(self) -> list[int]:
        """Return after which record each look at the audit log was: how many depends on time."""
        requests = (data for method, data in self.sent if method == "GetCheckpoint")
        return [audit_pb2.GetCheckpointRequest.FromString(data).after for data in requests]

    def values(self, *kinds: EgressClass) -> list[tuple[str, Any]]:
        """Return path and value of every field of these classes, in order."""
        return [
            (path, getattr(owner, name))
            for _, message in self.messages()
            for path, owner, name in _leaves(message, message.DESCRIPTOR.name)
            if MANIFEST[path].kind in kinds
        ]

    def without(self, *kinds: EgressClass) -> list[tuple[str, bytes]]:
        """Return what was sent, fields of these classes overwritten at their length.

        An echo stands as the place at which it was first heard: it must have been.
        """
        return [(method, self._without(message, kinds)) for method, message in self.messages()]

    def _without(self, message: Message, kinds: tuple[EgressClass, ...]) -> bytes:
        for path, owner, name in _leaves(message, message.DESCRIPTOR.name):
            value = getattr(owner, name)
            if path in ECHOES:
                setattr(owner, name, f"heard {self.heard.index(value)}")
            elif MANIFEST[path].kind in kinds:
                setattr(owner, name, bytes(len(value)) if isinstance(value, bytes) else "0" * 64)
        return message.SerializeToString()


def _leaves(message: Message, path: str) -> Iterator[tuple[str, Message, str]]:
    """Yield (path, the message that holds it, its name) of every field that is set."""
    for each, value in message.ListFields():
        here = f"{path}.{each.name}"
        if not is_nested(each):
            yield here, message, each.name
        for nested in (value if each.is_repeated else (value,)) if is_nested(each) else ():
            yield from _leaves(nested, here)


class _Channel:
    """Stands between the guard and gRPC."""

    def __init__(self, channel, record: Record) -> None:
        self._channel, self._record = channel, record

    def unary_unary(self, method, response_deserializer):
        return self._single(self._channel.unary_unary, method, response_deserializer)

    def unary_stream(self, method, response_deserializer):
        return self._single(self._channel.unary_stream, method, response_deserializer)

    def stream_unary(self, method, response_deserializer):
        call = self._channel.stream_unary(
            method, response_deserializer=self._hearing(response_deserializer)
        )

        def begun(timeout):
            stream = call(timeout=timeout)
            write = stream.write

            async def noted(request: bytes) -> None:
                self._note(method, request)
                await write(request)

            stream.write = noted
            return stream

        return begun

    def _single(self, kind, method, response_deserializer):
        call = kind(method, response_deserializer=self._hearing(response_deserializer))

        def noted(request, timeout):
            self._note(method, request)
            return call(request, timeout=timeout)

        return noted

    def _note(self, method: str, request: bytes) -> None:
        self._record.sent.append((method.rpartition("/")[2], request))

    def _hearing(self, deserializer):
        def heard(data: bytes) -> Message:
            message = deserializer(data)
            if isinstance(message, Chunk):
                return message
            if isinstance(message, audit_pb2.GetCheckpointResponse):
                self._record.places.append(message.checkpoint.sequence)
                return message
            for _, owner, name in _leaves(message, ""):
                value = getattr(owner, name)
                if isinstance(value, str) and value not in self._record.heard:
                    self._record.heard.append(value)
            return message

        return heard


class RecordedClient(GrpcClient):
    """The client as shipped, with a record behind its guard."""

    def __init__(self, address: str, tls: TlsFiles, record: Record) -> None:
        super().__init__(address, tls)
        guarded = GuardedChannel(_Channel(self._channel, record))
        self._stub, self._audit = GatewayServiceStub(guarded), AuditServiceStub(guarded)
