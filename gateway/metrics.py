"""A gateway's figures, for a Prometheus of its own site.

They say when it worked and how much it sent, not what on: no units, batches, losses, budgets.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge, Histogram

from common.exposition import SECONDS, exposed, registry_of
from common.listening import write_atomically
from gateway.watching import Outcome, Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from prometheus_client import CollectorRegistry

    from common.protocol import Train, UpdateKey
    from common.tls import TlsFiles
    from gateway.watching import Answered

log = structlog.get_logger()

METRICS_ADDRESS = "metrics-address"  # a file in the state folder


class Metrics:
    """Counts this gateway's rounds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._connected = Gauge(
            "fedgate_gateway_connected",
            "1 while the orchestrator's stream is open.",
            registry=registry,
        )
        self._rounds = Counter(
            "fedgate_gateway_rounds",
            "Rounds that this gateway was told to train, by what became of them here.",
            ["outcome"],
            registry=registry,
        )
        self._phases = Histogram(
            "fedgate_gateway_phase_seconds",
            "How long each phase of a round took, whether it succeeded or not.",
            ["phase"],
            buckets=SECONDS,
            registry=registry,
        )
        self._fetched = Counter(
            "fedgate_gateway_weights_fetched_bytes", "Of weights, whole.", registry=registry
        )
        self._sent = Counter(
            "fedgate_gateway_updates_sent_bytes",
            "Of updates that the orchestrator acknowledged.",
            registry=registry,
        )
        for outcome in Outcome:
            self._rounds.labels(outcome)
        for phase in Phase:
            self._phases.labels(phase)

    def connected(self, connected: bool, /) -> None:  # noqa: FBT001 - as the agent tells it
        """Note that the orchestrator's stream opened or broke."""
        self._connected.set(connected)

    def answered(self, answered: Answered) -> None:
        """Take no note: plans are no figures."""

    def round(self, key: UpdateKey, train: Train) -> AbstractContextManager[object]:  # noqa: ARG002
        """Stand around nothing: a round is counted when it ends."""
        return nullcontext()

    def phase(self, phase: Phase) -> AbstractContextManager[object]:
        """Measure the block."""
        return self._phases.labels(phase).time()

    def moved(self, phase: Phase, byte_length: int) -> None:
        """Count bytes."""
        (self._fetched if phase is Phase.FETCH else self._sent).inc(byte_length)

    def ended(self, outcome: Outcome) -> None:
        """Count a round."""
        self._rounds.labels(outcome).inc()


@asynccontextmanager
async def measured(address: str, files: TlsFiles, state: Path) -> AsyncIterator[Metrics]:
    """Answer Prometheus inside the block, at an address that a file in `state` names.

    Raises:
        AddressTaken: another process has it.
    """
    registry = registry_of(files)
    metrics = Metrics(registry)
    file = state / METRICS_ADDRESS
    async with exposed(address, registry) as served:
        write_atomically(file, served)
        log.info("measuring", address=served)
        try:
            yield metrics
        finally:
            file.unlink(missing_ok=True)
