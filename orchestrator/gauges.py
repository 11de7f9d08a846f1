"""Where the orchestrator stands, in figures: read on the event loop each time Prometheus asks."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from common.protocol import GOING_ON, RunState
from orchestrator.budgets import MIB
from orchestrator.rounds import OPEN, Phase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

    from common.clock import Clock
    from common.disk import Disk
    from orchestrator.config import OrchestratorConfig
    from orchestrator.orchestrator import Orchestrator

log = structlog.get_logger()

PATIENCE_S = 5.0  # with an event loop that does not answer
SHOWN = ("PermissionRefused", "TooManyRequests", "Unauthenticated")  # 0 until there is one


@dataclass(frozen=True)
class Reading:
    """What was read at one moment."""

    leads: bool
    runs: Mapping[RunState, int]
    rounds: Mapping[Phase, int]
    overdue_s: float
    connected: int
    away: int
    in_doubt: int
    update_bytes: int
    weight_bytes: int
    open_calls: int
    refused_calls: Mapping[str, int]
    memory_taken: int


def read(orchestrator: Orchestrator, now: float) -> Reading:
    """Return where all runs, gateways and calls stand; on the event loop alone.

    Args:
        orchestrator: who is asked.
        now: on the clock of its deadlines.
    """
    lives, tally = orchestrator.runs.going_on(), orchestrator.tally
    connected = orchestrator.runs.presence.connected
    needed = {gateway for live in lives for gateway in live.run.participants}
    rounds = [live.run.round for live in lives if live.run.round is not None]
    overdue = [now - live.deadline for live in lives]
    return Reading(
        leads=not orchestrator.runs.halted.is_set(),
        runs=Counter(live.run.state for live in lives),
        rounds=Counter(each.phase for each in rounds),
        overdue_s=max(0.0, *overdue) if overdue else 0.0,
        connected=len(connected),
        away=len(needed - connected),
        in_doubt=sum(live.is_in_doubt for live in lives),
        update_bytes=tally.update_bytes,
        weight_bytes=tally.weight_bytes,
        open_calls=tally.open_calls,
        refused_calls=dict(tally.refused_calls),
        memory_taken=orchestrator.memory.taken,
    )


class Gauges(Collector):
    """Asks the event loop how things stand whenever it is scraped, which is in another thread."""

    def __init__(self, config: OrchestratorConfig, clock: Clock, disk: Disk) -> None:
        """Say nothing but that this process does not lead, until there is something to watch."""
        self._config = config
        self._clock = clock
        self._disk = disk
        self._loop = asyncio.get_running_loop()
        self._orchestrator: Orchestrator | None = None

    def watch(self, orchestrator: Orchestrator) -> None:
        """Read from `orchestrator`, which leads, from now on."""
        self._orchestrator = orchestrator

    def collect(self) -> Iterator[Metric]:
        """Yield every figure as it is now."""
        reading = None if self._orchestrator is None else self._read(self._orchestrator)
        leads = reading is not None and reading.leads
        yield _gauge("leader", "1 where this process may write, and its loop answers.", leads)
        yield from self._of_disks()
        if reading is None:
            return
        yield from _of_runs(reading)
        yield from _of_calls(reading)
        yield _gauge("memory_budget_taken_bytes", "Lent to bodies.", reading.memory_taken)
        limit = self._config.limits.in_flight_mib * MIB
        yield _gauge("memory_budget_bytes", "That bodies may take (in_flight_mib).", limit)

    def _read(self, orchestrator: Orchestrator) -> Reading | None:
        """Return what the event loop says; None: it does not answer in time."""

        async def now() -> Reading:
            return read(orchestrator, self._clock.now())

        asked = asyncio.run_coroutine_threadsafe(now(), self._loop)
        try:
            return asked.result(PATIENCE_S)
        except TimeoutError:
            asked.cancel()
            log.warning("loop_does_not_answer", after_s=PATIENCE_S)
            return None

    def _of_disks(self) -> Iterator[Metric]:
        free = GaugeMetricFamily(
            "fedgate_disk_free_bytes", "Room on the disk of a folder.", labels=["folder"]
        )
        shared = self._config.shared or self._config.state
        for name, folder in (("state", self._config.state), ("weights", shared)):
            with suppress(OSError):  # a disk that is away has no figure
                free.add_metric([name], self._disk.free(folder))
        yield free
        reserve = self._config.limits.disk_reserve_mib * MIB
        yield _gauge("disk_reserve_bytes", "That no body may take (disk_reserve_mib).", reserve)


def _of_runs(reading: Reading) -> Iterator[Metric]:
    runs = GaugeMetricFamily("fedgate_runs", "Runs that go on, by state.", labels=["state"])
    for state in GOING_ON:
        runs.add_metric([state], reading.runs.get(state, 0))
    yield runs
    rounds = GaugeMetricFamily("fedgate_rounds_open", "Open rounds, by phase.", labels=["phase"])
    for phase in OPEN:
        rounds.add_metric([phase.value], reading.rounds.get(phase, 0))
    yield rounds
    yield _gauge(
        "deadline_overdue_seconds",
        "By how much the run that is most behind is past what it waits for; 0: none is.",
        reading.overdue_s,
    )
    yield _gauge(
        "runs_in_doubt", "Runs whose last write may not be in the journal.", reading.in_doubt
    )
    yield _gauge("gateways_connected", "Gateways whose Watch is open.", reading.connected)
    yield _gauge(
        "gateways_away", "Gateways that a run needs and that are not connected.", reading.away
    )


def _of_calls(reading: Reading) -> Iterator[Metric]:
    yield _gauge("calls_open", "Calls under way, Watch streams among them.", reading.open_calls)
    refused = CounterMetricFamily(
        "fedgate_calls_refused", "Calls that were refused, by the error.", labels=["reason"]
    )
    for reason in sorted({*SHOWN, *reading.refused_calls}):
        refused.add_metric([reason], reading.refused_calls.get(reason, 0))
    yield refused
    yield CounterMetricFamily(
        "fedgate_updates_received_bytes", "Of updates, repeats counted.", value=reading.update_bytes
    )
    yield CounterMetricFamily(
        "fedgate_weights_sent_bytes", "Of weights, to gateways.", value=reading.weight_bytes
    )


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fedgate_{name}", text, value=value)
