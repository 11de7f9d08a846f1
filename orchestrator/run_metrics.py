"""Runs and rounds in figures for Prometheus, made of the events as they are recorded.

No label names a run or a gateway: each takes one of few values, whatever the federation does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

from common.bad_updates import UpdateRefusalReason
from common.exposition import SECONDS
from common.protocol import RefusalReason, RunState
from orchestrator.events import (
    GatewayDeclined,
    Restarted,
    RoundOpened,
    UpdateAccepted,
    UpdateLost,
    UpdateRefused,
    UpdateSetAside,
)
from orchestrator.norms import factor
from orchestrator.rounds import OPEN, Phase

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from common.clock import Clock
    from common.ids import RunId
    from orchestrator.auditing import Step
    from orchestrator.runs import Run

ENDS = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)
OUTCOMES = {Phase.CLOSED: "published", Phase.ABANDONED: "abandoned"}


class RunMetrics:
    """Counts what happens in runs, and measures how long their rounds take."""

    def __init__(self, registry: CollectorRegistry, clock: Clock) -> None:
        self._clock = clock
        self._began: dict[RunId, float] = {}  # the open round's phase

        def counter(name: str, text: str, label: str = "", *values: str) -> Counter:
            made = Counter(f"fedgate_{name}", text, [label] if label else [], registry=registry)
            for value in values:
                made.labels(value)  # 0 from the start on, or its first increase would not be seen
            return made

        self._ended = counter("runs_ended", "Runs that ended, by how.", "outcome", *ENDS)
        self._opened = counter("rounds_opened", "Attempts at a round that were opened.")
        self._closed = counter(
            "rounds_ended", "Attempts at a round that ended, by how.", "outcome", *OUTCOMES.values()
        )
        self._counted = counter("updates_counted", "Updates that were taken into a sum.")
        self._clipped = counter("updates_clipped", "Of these, updates that were scaled down.")
        self._set_aside = counter("updates_set_aside", "Updates of gateways in quarantine.")
        self._lost = counter("updates_lost", "Updates that did not come again after a restart.")
        self._refused = counter(
            "updates_refused", "Updates that were refused, by why.", "reason", *UpdateRefusalReason
        )
        self._declined = counter(
            "updates_declined", "Rounds that a gateway declined, by why.", "reason", *RefusalReason
        )
        self._phases = Histogram(
            "fedgate_round_phase_seconds",
            "How long a round waited for updates, and how long it took to make weights of them.",
            ["phase"],
            buckets=SECONDS,
            registry=registry,
        )
        for phase in OPEN:
            self._phases.labels(phase.value)

    def see(self, step: Step) -> None:
        """Take note of one event of a run."""
        self._count(step)
        if step.after.has_ended and not step.before.has_ended:
            self._ended.labels(step.after.state).inc()
        was, now = _phase(step.before), _phase(step.after)
        if now is not was and now in OUTCOMES:
            self._closed.labels(OUTCOMES[now]).inc()
        if now is not was or isinstance(step.event, Restarted | RoundOpened):
            self._measure(step, was, now)

    def _count(self, step: Step) -> None:
        match step.event:
            case RoundOpened():
                self._opened.inc()
            case UpdateAccepted(norm=norm):
                self._counted.inc()
                state = step.before.round
                self._clipped.inc(state is not None and factor(norm, state.norm_bound) < 1.0)
            case UpdateSetAside():
                self._set_aside.inc()
            case UpdateLost():
                self._lost.inc()
            case UpdateRefused(reason=reason):
                self._refused.labels(reason).inc()
            case GatewayDeclined(refusal=refusal):
                self._declined.labels(refusal.reason).inc()
            case _:
                pass

    def _measure(self, step: Step, was: Phase | None, now: Phase | None) -> None:
        """Note how long a phase took; one that a restart cut short, or met half-way, has no end."""
        run, at = step.after.run_id, self._clock.now()
        began = self._began.pop(run, None)
        if began is not None and was in OPEN and not isinstance(step.event, Restarted):
            self._phases.labels(was.value).observe(at - began)
        if now in OPEN:
            self._began[run] = at


def _phase(run: Run) -> Phase | None:
    """Return where the open round of a run that goes on stands."""
    return None if run.round is None or run.has_ended else run.round.phase
