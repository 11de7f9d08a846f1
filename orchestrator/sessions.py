"""Who is here: the lease of each gateway's process, and the stream that tells it what to do."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from math import floor
from typing import TYPE_CHECKING

from common.errors import RequestError, UnavailableError
from common.ids import NO_RUN
from common.protocol import PROTOCOL_VERSION, Registration, RunNews, Stop, StopReason, Versions
from common.transfer import CHUNK_BYTES
from common.version import SOFTWARE_VERSION
from orchestrator.admission import NotInvited, UnknownRun
from orchestrator.news import news_for, unknown_run

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence

    from common.ids import GatewayId, RunId
    from orchestrator.live_runs import LiveRun, LiveRuns
    from orchestrator.news import News
    from orchestrator.weight_store import WeightStore

OURS = Versions(PROTOCOL_VERSION, SOFTWARE_VERSION)
TICK_S = 2.0**-4  # of the time that is left


class VersionMismatch(RequestError):
    """The two sides speak different protocols."""

    def __init__(self, theirs: Versions) -> None:
        super().__init__(
            f"the gateway speaks protocol {theirs.protocol} (software {theirs.software}), the "
            f"orchestrator {OURS.protocol} (software {OURS.software}): install versions that fit"
        )


class LeaseEnded(UnavailableError):
    """The lease is not the gateway's newest, or its orchestrator was started again since."""

    def __init__(self) -> None:
        super().__init__(
            "the lease is not this gateway's newest, or from before a restart: call Register again"
        )


class ShuttingDown(UnavailableError):
    """The orchestrator is about to stop."""

    def __init__(self) -> None:
        super().__init__("the orchestrator is shutting down: connect again soon")


@dataclass
class _Session:
    """One registered process of a gateway."""

    versions: Versions
    lease: str = field(default_factory=lambda: secrets.token_hex(16))
    stream: object | None = None  # its newest Watch


class Sessions:
    """The gateways that have registered since this process started."""

    def __init__(self, runs: LiveRuns, weights: WeightStore) -> None:
        self._runs = runs
        self._weights = weights
        self._sessions: dict[GatewayId, _Session] = {}
        self._is_closing = False

    def register(self, gateway: GatewayId, versions: Versions) -> Registration:
        """Open a lease, which ends the streams of an older process; raise VersionMismatch."""
        if versions.protocol != PROTOCOL_VERSION:
            raise VersionMismatch(versions)
        session = _Session(versions)
        self._sessions[gateway] = session
        self._runs.bell(gateway).ring()
        return Registration(gateway, session.lease, OURS, CHUNK_BYTES)

    def versions(self, gateway: GatewayId) -> Versions | None:
        """Return what the gateway said at Register, or None if it has not since a restart."""
        session = self._sessions.get(gateway)
        return None if session is None else session.versions

    async def watch(
        self, gateway: GatewayId, lease: str, kept_runs: Sequence[RunId]
    ) -> AsyncGenerator[RunNews]:
        """Yield the state of each run that concerns the gateway, then every change.

        Raises:
            LeaseEnded: the gateway must register first.
            ShuttingDown: this process is about to stop.
        """
        session = self._sessions.get(gateway)
        if session is None or session.lease != lease:
            raise LeaseEnded
        stream = session.stream = object()
        self._runs.bell(gateway).ring()  # an older stream of the same process ends
        self._runs.set_connected(gateway, is_connected=True)
        try:
            async for news in self._changes(gateway, session, set(kept_runs)):
                yield news
        finally:
            if self._sessions[gateway] is session and session.stream is stream:
                self._runs.set_connected(gateway, is_connected=False)

    def close(self) -> None:
        """End every stream."""
        self._is_closing = True
        for gateway in self._sessions:
            self._runs.bell(gateway).ring()

    async def _changes(
        self, gateway: GatewayId, session: _Session, told_of: set[RunId]
    ) -> AsyncIterator[RunNews]:
        said: dict[RunId, tuple[object, ...]] = {}
        stream = session.stream
        while session.stream is stream:
            rung = self._runs.bell(gateway).next
            if self._is_closing:
                raise ShuttingDown
            if self._sessions[gateway] is not session:
                yield RunNews(NO_RUN, 0, Stop(StopReason.SUPERSEDED))
                return
            told_of |= {live.run.run_id for live in self._runs.of(gateway)}
            for news in self._news(gateway, told_of):
                run_id = news.said.run_id
                if said.get(run_id) != news.of:
                    said[run_id] = news.of
                    yield news.said
                if isinstance(news.said.instruction, Stop):  # the last word on it
                    told_of.discard(run_id)
                    said.pop(run_id, None)
            await rung.wait()

    def _news(self, gateway: GatewayId, run_ids: set[RunId]) -> Iterator[News]:
        for run_id in sorted(run_ids):
            try:
                live = self._runs.get_for(gateway, run_id)
            except (UnknownRun, NotInvited):
                yield unknown_run(run_id)
            else:
                yield self._news_of(live, gateway)

    def _news_of(self, live: LiveRun, gateway: GatewayId) -> News:
        parent = live.run.weights if live.run.round is None else live.run.round.parent
        return news_for(
            live.run,
            gateway,
            byte_length=self._weights.byte_length(parent),
            remaining_s=_coarse(self._runs.remaining_s(live)),
            restarts=live.restarts,
        )


def _coarse(seconds: float) -> float:
    """Return a little less, so that all who are told together are told the same."""
    return floor(seconds / TICK_S) * TICK_S
