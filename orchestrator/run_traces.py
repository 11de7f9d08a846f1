"""Rounds as spans, made of the events as they are recorded: a trace for each, a span an attempt."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import StatusCode, set_span_in_context

from common.tracing import tracing
from orchestrator.events import (
    GatewayDeclined,
    UpdateAccepted,
    UpdateLost,
    UpdateRefused,
    UpdateSetAside,
)
from orchestrator.news import traceparent_for
from orchestrator.rounds import OPEN, Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from opentelemetry.trace import Span, Tracer

    from common.ids import RunId
    from common.telemetry import TraceSettings
    from common.tracing import Ids
    from orchestrator.auditing import Step
    from orchestrator.rounds import Round
    from orchestrator.runs import Run

OF_GATEWAYS = (UpdateAccepted, UpdateSetAside, UpdateRefused, UpdateLost, GatewayDeclined)


class RunTraces:
    """Begins and ends the spans of rounds."""

    def __init__(self, tracer: Tracer, ids: Ids) -> None:
        self._tracer = tracer
        self._ids = ids
        self._rounds: dict[RunId, Span] = {}
        self._phases: dict[RunId, Span] = {}

    def see(self, step: Step) -> None:
        """Take note of one event of a run; after a restart its open round's spans begin anew."""
        run_id, state = step.after.run_id, _open(step.after)
        if isinstance(step.event, OF_GATEWAYS) and run_id in self._rounds:
            named = {"fedgate.gateway": step.event.gateway}
            self._rounds[run_id].add_event(type(step.event).__name__, named)
        if state is None:
            self._end(step.after)
            return
        if run_id not in self._rounds:
            self._begin(step.after, state)
        before = _open(step.before)
        if run_id not in self._phases or before is None or before.phase is not state.phase:
            self._begin_phase(run_id, state.phase)

    def close(self) -> None:
        """Let the spans go of rounds that this process does not end."""
        for spans in (self._phases, self._rounds):
            for span in spans.values():
                span.end()
            spans.clear()

    def _begin(self, run: Run, state: Round) -> None:
        attributes: dict[str, str | int] = {
            "fedgate.run": run.run_id,
            "fedgate.round": state.number,
            "fedgate.attempt": state.attempt,
            "fedgate.invited": len(state.invited),
        }
        with self._ids.named(traceparent_for(run, state)):
            span = self._tracer.start_span("round", context=Context(), attributes=attributes)
        self._rounds[run.run_id] = span

    def _begin_phase(self, run_id: RunId, phase: Phase) -> None:
        if (before := self._phases.pop(run_id, None)) is not None:
            before.end()
        within = set_span_in_context(self._rounds[run_id], Context())
        self._phases[run_id] = self._tracer.start_span(f"round {phase.value}", context=within)

    def _end(self, run: Run) -> None:
        if (phase := self._phases.pop(run.run_id, None)) is not None:
            phase.end()
        if (span := self._rounds.pop(run.run_id, None)) is None:
            return
        published = run.round is not None and run.round.phase is Phase.CLOSED
        span.set_attribute("fedgate.outcome", "published" if published else "abandoned")
        if not published:
            span.set_status(StatusCode.ERROR)
        span.end()


def _open(run: Run) -> Round | None:
    """Return the round of a run that goes on, while it is open."""
    is_open = run.round is not None and not run.has_ended and run.round.phase in OPEN
    return run.round if is_open else None


@asynccontextmanager
async def traced(settings: TraceSettings, federation: str) -> AsyncIterator[RunTraces]:
    """Lend what is to be told of the events of runs; at the end, send what is left."""
    async with tracing(settings, "fedgate-orchestrator", federation) as (tracer, ids):
        traces = RunTraces(tracer, ids)
        try:
            yield traces
        finally:
            traces.close()
