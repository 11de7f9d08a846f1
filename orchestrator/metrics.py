"""What an orchestrator tells its operator in figures, for Prometheus.

Of gateways nothing is told that they do not send the orchestrator anyway, and none by its name.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Histogram

from common.disk import SYSTEM_DISK
from common.exposition import exposed, registry_of
from common.listening import write_atomically
from orchestrator.gauges import Gauges
from orchestrator.run_metrics import RunMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.clock import Clock
    from orchestrator.config import OrchestratorConfig
    from orchestrator.orchestrator import Orchestrator

log = structlog.get_logger()

COMMITS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # seconds


@asynccontextmanager
async def measured(
    config: OrchestratorConfig, address: str, clock: Clock
) -> AsyncIterator[Callable[[Orchestrator], None]]:
    """Answer Prometheus inside the block; what is lent has an orchestrator measured.

    A standby answers too, before it has an orchestrator: that it does not lead.
    """
    registry = registry_of(config.tls)
    gauges, runs = Gauges(config, clock, SYSTEM_DISK), RunMetrics(registry, clock)
    commits = Histogram(
        "fedgate_journal_commit_seconds",
        "How long a transaction that writes took, from its begin to its commit.",
        buckets=COMMITS,
        registry=registry,
    )
    registry.register(gauges)

    def watch(orchestrator: Orchestrator) -> None:
        orchestrator.fence.timing = commits.time
        orchestrator.runs.watchers.append(runs.see)
        gauges.watch(orchestrator)

    async with exposed(address, registry) as served:
        write_atomically(config.metrics_address_file, served)
        log.info("measuring", address=served)
        try:
            yield watch
        finally:
            config.metrics_address_file.unlink(missing_ok=True)
