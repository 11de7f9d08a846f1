"""Who looks on while an orchestrator works: metrics, traces; each loaded where it is asked for."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from common.telemetry import TracesNeedTheExtra

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from common.clock import Clock
    from orchestrator.config import OrchestratorConfig
    from orchestrator.orchestrator import Orchestrator

    Look = Callable[[Orchestrator], None]


@asynccontextmanager
async def watching(config: OrchestratorConfig, clock: Clock) -> AsyncIterator[Look]:
    """Lend what has an orchestrator looked at, as its settings say.

    Raises:
        AddressTaken: figures cannot be served where they should be.
        TracesNeedTheExtra, CertificateFileMissing: spans cannot be sent.
    """
    looks: list[Look] = []

    def look(orchestrator: Orchestrator) -> None:
        for each in looks:
            each(orchestrator)

    async with AsyncExitStack() as stack:
        if config.metrics is not None:
            from orchestrator.metrics import measured  # noqa: PLC0415

            measuring = measured(config, config.metrics.address, clock)
            looks.append(await stack.enter_async_context(measuring))
        if config.traces is not None:
            try:
                from orchestrator.run_traces import traced  # noqa: PLC0415
            except ImportError as error:
                raise TracesNeedTheExtra from error
            traces = await stack.enter_async_context(traced(config.traces, config.federation))
            looks.append(lambda orchestrator: orchestrator.runs.watchers.append(traces.see))
        yield look
