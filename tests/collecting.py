"""A collector of traces on loopback: OTLP over gRPC, as its protobuf says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


@dataclass(frozen=True)
class Seen:
    """A span as it came."""

    service: str
    process: str
    name: str
    trace: str
    span: str
    parent: str
    attributes: dict[str, Any]
    events: list[str]
    status: str


@dataclass
class Collector(TraceServiceServicer):
    """Keeps what it is sent."""

    spans: list[Seen] = field(default_factory=list)
    received: list[bytes] = field(default_factory=list)
    endpoint: str = ""

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        return self

    async def __aexit__(self, *_) -> None:
        await self._server.stop(None)

    async def Export(self, request, context):  # noqa: N802 - OTLP's
        self.received.append(request.SerializeToString())
        for each in request.resource_spans:
            resource = _values(each.resource.attributes)
            self.spans += [
                Seen(
                    service=resource["service.name"],
                    process=resource["service.instance.id"],
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    attributes=_values(span.attributes),
                    events=[event.name for event in span.events],
                    status=span.status.message,
                )
                for scope in each.scope_spans
                for span in scope.spans
            ]
        return pb.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]


def _values(attributes) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
