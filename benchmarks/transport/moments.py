"""When a round is opened and when its gateways have read the word, on the clock they share.

Linux's monotonic clock is one for all processes of a machine. Each process prints its moments into
its log; `told` brings them together.
"""

from __future__ import annotations

import asyncio
import json
import time  # noqa: TID251 - measures
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import structlog

from common.audit import ORCHESTRATOR
from common.errors import FederationError
from common.protocol import Train
from gateway.client import GrpcClient
from orchestrator.events import RoundOpened
from orchestrator.live_runs import LiveRuns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from common.channel import Addresses
    from common.ids import RunId
    from common.protocol import RunNews
    from common.tls import TlsFiles
    from orchestrator.events import RunEvent
    from orchestrator.live_runs import LiveRun

LOG = structlog.get_logger()
OPENING, ALL_TOLD, CALL_FAILED = "opening", "all_told", "call_failed"
PATIENCE_S = 5.0  # with a gateway that is not told
KEPT_ROUNDS = 64  # that somebody may still hear of
REGISTERED = "registered"  # in a gateway's log
REFUSED = "refused"  # a call, in the orchestrator's log


def note_openings() -> None:
    """Let this process print when it is about to record that a round opens, until it ends."""
    record = LiveRuns.record

    def noting(runs: LiveRuns, live: LiveRun, *events: RunEvent, actor: str = ORCHESTRATOR) -> None:
        at = time.monotonic()
        record(runs, live, *events, actor=actor)
        for event in events:
            if isinstance(event, RoundOpened):
                LOG.info(OPENING, run=live.run.run_id, round=event.number, at=at)

    patch.object(LiveRuns, "record", noting).start()


class Ears:
    """What the gateways of one process have heard; it prints when all have the word of a round.

    Until then none of them begins to work: on machines of their own they would not take the
    processor from those that are still to be told.
    """

    def __init__(self, gateways: int) -> None:
        """Wait for so many."""
        self._gateways = gateways
        self._of: dict[tuple[RunId, int], tuple[set[str], asyncio.Event]] = {}  # the last rounds

    async def hear(self, name: str, run: RunId, train: Train) -> None:
        """Note that a gateway has read that it is to train; wait for the others."""
        told, every = self._of.setdefault((run, train.round), (set(), asyncio.Event()))
        if len(self._of) > KEPT_ROUNDS:
            self._of.pop(next(iter(self._of)))  # the memory of an hour's rounds is measured, too
        told.add(name)
        if len(told) == self._gateways and not every.is_set():
            LOG.info(ALL_TOLD, run=run, round=train.round, at=time.monotonic())
            every.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(every.wait(), PATIENCE_S)


class ListeningClient(GrpcClient):
    """The real client, which also tells when it hears of a round and when a call has failed."""

    def __init__(self, addresses: Addresses, tls: TlsFiles, name: str, ears: Ears) -> None:
        """Tell `ears` what the gateway `name` hears."""
        super().__init__(addresses, tls)
        self._name = name
        self._ears = ears

    async def watch(self, lease: str, kept_runs: Sequence[RunId]) -> AsyncIterator[RunNews]:
        """Yield the news of the stream as they come."""
        async for news in super().watch(lease, kept_runs):
            if isinstance(news.instruction, Train):
                await self._ears.hear(self._name, news.run_id, news.instruction)
            yield news

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            with super()._our_errors():
                yield
        except FederationError as error:
            LOG.warning(CALL_FAILED, gateway=self._name, why=str(error))
            raise


def told_s(orchestrator_log: str, gateway_logs: Sequence[str], run: RunId) -> tuple[float, ...]:
    """Return for each round of `run` the seconds from its opening until every gateway had it.

    Raises:
        LookupError: a process has not printed its moments.
    """
    opened = _moments(orchestrator_log, OPENING, run)
    all_told = [_moments(log, ALL_TOLD, run) for log in gateway_logs]
    return tuple(max(told[round_] for told in all_told) - at for round_, at in opened.items())


def errors(orchestrator_log: str, gateway_logs: Sequence[str]) -> int:
    """Return how often anything failed: a call, a connection, a line above information."""
    found = [line for log in (orchestrator_log, *gateway_logs) for line in _lines(log)]
    is_bad = [line["level"] not in {"debug", "info"} or line["event"] == REFUSED for line in found]
    registered = [line["gateway"] for line in found if line["event"] == REGISTERED]
    return is_bad.count(True) + len(registered) - len(set(registered))


def _moments(log: str, event: str, run: RunId) -> dict[int, float]:
    """Return when `event` first was, by round."""
    found: dict[int, float] = {}
    for line in _lines(log):
        if line["event"] == event and line["run"] == run:
            found.setdefault(line["round"], line["at"])
    return found


def _lines(log: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log; any that no logger has written, such as a traceback's, is one."""
    for line in log.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            yield {"level": "error", "event": line}
