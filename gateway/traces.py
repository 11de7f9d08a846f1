"""A gateway's rounds as spans, for the collector of its own site.

They join the trace of the round, which came with `Train`. Of an error nothing is told but that
there was one: its text may quote the data.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from common.tracing import tracing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from opentelemetry.trace import Tracer

    from common.ids import GatewayId
    from common.protocol import Train, UpdateKey
    from common.telemetry import TraceSettings
    from gateway.watching import Answered, Outcome, Phase


class Traces:
    """Begins and ends this gateway's spans."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def connected(self, connected: bool, /) -> None:  # noqa: FBT001 - as the agent tells it
        """Take no note: that is no part of a round."""

    def answered(self, answered: Answered) -> None:
        """Take no note: that is no part of a round."""

    @contextmanager
    def round(self, key: UpdateKey, train: Train) -> Iterator[None]:
        """Stand around all that is done for a round at one go."""
        carrier = {"traceparent": train.traceparent}
        parent = TraceContextTextMapPropagator().extract(carrier, Context())
        attributes: dict[str, str | int] = {"fedgate.run": key.run_id, "fedgate.round": key.round}
        with self._span("gateway round", parent, attributes):
            yield

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Stand around one phase of it."""
        with self._span(f"gateway {phase}"):
            yield

    def moved(self, phase: Phase, byte_length: int) -> None:
        """Note how many bytes went."""
        get_current_span().set_attribute(f"fedgate.{phase}_bytes", byte_length)

    def ended(self, outcome: Outcome) -> None:
        """Note what became of the round."""
        get_current_span().set_attribute("fedgate.outcome", outcome)

    @contextmanager
    def _span(
        self,
        name: str,
        within: Context | None = None,
        attributes: Mapping[str, str | int] | None = None,
    ) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name,
            context=within,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException:
                span.set_status(StatusCode.ERROR)
                raise


@asynccontextmanager
async def traced(settings: TraceSettings, gateway: GatewayId) -> AsyncIterator[Traces]:
    """Lend what is to be told of rounds; at the end, send what is left."""
    async with tracing(settings, "fedgate-gateway", gateway) as (tracer, _):
        yield Traces(tracer)
