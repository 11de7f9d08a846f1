"""Spans to a collector of one's own, over OTLP and gRPC; nothing else of OpenTelemetry is used.

Nothing is put into a call of the federation: a gateway learns its round's trace from `Train`, and
tells nobody but its site's collector.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import grpc
import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from common.key_files import read_file
from common.trace_context import ids_in
from common.version import SOFTWARE_VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from opentelemetry.trace import Tracer

    from common.telemetry import TraceSettings

log = structlog.get_logger()

SEND_S = 5.0  # for one batch; then it is lost
LIBRARY = "opentelemetry"


class Ids(RandomIdGenerator):
    """Draws ids, but inside `named` gives those that a traceparent names."""

    def __init__(self) -> None:
        self._given: tuple[int, int] | None = None

    @contextmanager
    def named(self, traceparent: str) -> Iterator[None]:
        """Have the span that begins inside the block be the one of `traceparent`."""
        self._given = ids_in(traceparent)
        try:
            yield
        finally:
            self._given = None

    def generate_trace_id(self) -> int:
        """Return the id of a new trace."""
        return super().generate_trace_id() if self._given is None else self._given[0]

    def generate_span_id(self) -> int:
        """Return the id of a new span."""
        return super().generate_span_id() if self._given is None else self._given[1]


class _ToOurLog(logging.Handler):
    """What the library would print is an event of our log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        log.warning("traces_not_sent", why=record.getMessage())


@asynccontextmanager
async def tracing(
    settings: TraceSettings, service: str, name: str
) -> AsyncIterator[tuple[Tracer, Ids]]:
    """Lend what begins spans of `service`, whose process is `name`; at the end, send the rest.

    A collector that is away costs spans, and nothing waits for it but the end of the process.

    Raises:
        CertificateFileMissing: the collector's authority cannot be read.
    """
    ids = Ids()
    attributes = {
        "service.name": service,
        "service.version": SOFTWARE_VERSION,
        "service.instance.id": name,
    }
    resource = Resource.create(attributes)
    provider = TracerProvider(id_generator=ids, resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(settings)))
    said = logging.getLogger(LIBRARY)
    handler, said.propagate = _ToOurLog(), False
    said.addHandler(handler)
    log.info("tracing", collector=settings.endpoint)
    try:
        yield provider.get_tracer("fedgate", SOFTWARE_VERSION), ids
    finally:
        await asyncio.to_thread(provider.shutdown)
        said.removeHandler(handler)


def _exporter(settings: TraceSettings) -> OTLPSpanExporter:
    insecure, credentials = settings.endpoint.startswith("http://"), None
    if settings.authority is not None:
        credentials = grpc.ssl_channel_credentials(read_file(settings.authority))
    return OTLPSpanExporter(
        endpoint=settings.endpoint, insecure=insecure, credentials=credentials, timeout=SEND_S
    )
