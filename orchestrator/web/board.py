"""The parts of a run's page that change with it, made once for everyone who looks.

Each part is an element with an id of its own, so that whoever follows a run is sent only the parts
that have changed. They are made in a thread: what they show is a value.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from common.web.values import VALUE_NAMES
from orchestrator.web import view
from orchestrator.web.chart import chart_of
from orchestrator.web.history import RoundRow, rows_after
from orchestrator.web.paces import Paces
from orchestrator.web.pages import fragment
from orchestrator.web.view import Seen, Sent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from markupsafe import Markup

    from common.ids import GatewayId, RunId
    from orchestrator.live_runs import LiveRun, LiveRuns
    from orchestrator.operations import Operations
    from orchestrator.web.paces import Opening, Pace

Fragments: TypeAlias = dict[str, "Markup"]  # by the id of their element, in their order

KEPT = 16  # runs whose parts stay in memory
SHOWN_ROUNDS = 20  # the newest; another page has all of them


@dataclass
class _Kept:
    """What is known of one run's page."""

    events: int = 0
    rounds: tuple[RoundRow, ...] = ()
    version: tuple[object, ...] = ()
    fragments: Fragments = field(default_factory=dict)
    sent: dict[GatewayId, int] = field(default_factory=dict)  # as it was shown last, and
    shown_at: float = 0.0  # when
    making: asyncio.Lock = field(default_factory=asyncio.Lock)


class Board:
    """Makes the parts of runs' pages, and keeps those that were made last."""

    def __init__(self, runs: LiveRuns, operations: Operations) -> None:
        self._runs = runs
        self._operations = operations
        self.paces = Paces(runs)
        self._kept: OrderedDict[RunId, _Kept] = OrderedDict()
        nothing = fragment("runs", name="ended", title="Ended", runs=())
        self._ended: tuple[frozenset[RunId], Markup] = frozenset(), nothing

    async def rounds(self, live: LiveRun) -> tuple[RoundRow, ...]:
        """Return how each round of a run went, the oldest first."""
        kept = self._of(live)
        async with kept.making:
            return await self._rounds(live, kept)

    async def fragments(self, live: LiveRun) -> Fragments:
        """Return the parts of a run's page as things stand."""
        kept = self._of(live)
        async with kept.making:
            if (version := self._version(live)) != kept.version:
                rounds = await self._rounds(live, kept)
                seen = self._seen(live, kept, rounds)
                paces = self.paces.of(live)
                made = await asyncio.to_thread(lambda: dict(_made(seen, paces)))
                kept.fragments, kept.version = made, version
            return kept.fragments

    async def list_of_runs(self) -> Fragments:
        """Return the parts of the list: runs that go on, and those that have ended.

        Of the latter the journal is read again only once there is another one.
        """
        going_on = tuple(map(self._operations.status_of, self._runs.going_on()))
        others = frozenset(self._runs.names()) - {status.run_id for status in going_on}
        if others != self._ended[0]:
            runs = await self._operations.list_runs()
            ended = tuple(each for each in runs if each.run_id in others)
            self._ended = others, fragment("runs", name="ended", title="Ended", runs=ended)
        shown = fragment("runs", name="going-on", title="Going on", runs=going_on)
        return {"going-on": shown, "ended": self._ended[1]}

    def _of(self, live: LiveRun) -> _Kept:
        kept = self._kept.setdefault(live.run.run_id, _Kept())
        self._kept.move_to_end(live.run.run_id)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return kept

    async def _rounds(self, live: LiveRun, kept: _Kept) -> tuple[RoundRow, ...]:
        if kept.events != live.recorded:
            run_id, after = live.run.run_id, kept.events
            fresh = await asyncio.to_thread(self._runs.events, run_id, after=after)
            kept.rounds, kept.events = rows_after(kept.rounds, fresh), after + len(fresh)
        return kept.rounds

    def _version(self, live: LiveRun) -> tuple[object, ...]:
        """Return what the parts depend on: two that are equal look alike."""
        seconds = 0 if live.run.has_ended else int(self._runs.remaining_s(live))
        return live.recorded, self._runs.presence, seconds, live.bytes_received, live.bytes_sent

    def _seen(self, live: LiveRun, kept: _Kept, rounds: tuple[RoundRow, ...]) -> Seen:
        counted: dict[GatewayId, int] = {}
        if (state := live.run.round) is not None:
            opening = (state.number, state.attempt)
            counted = {name: live.round_bytes.of(name, opening) for name in state.invited}
        now = asyncio.get_running_loop().time()
        passed_s, before = now - kept.shown_at, kept.sent
        sent = {
            name: Sent(count, max(0, count - before.get(name, 0)) / passed_s if passed_s else 0.0)
            for name, count in counted.items()
        }
        kept.sent, kept.shown_at = counted, now
        return Seen(live.run, self._operations.status_of(live), sent, rounds)


def _made(seen: Seen, paces: Mapping[Opening, Pace]) -> Iterator[tuple[str, Markup]]:
    status = seen.status
    yield "announce", fragment("announce", text=view.headline(seen))
    yield "summary", fragment("summary", status=status, wire=seen.run.plan.update_form.byte_length)
    yield "round", fragment("round", state=seen.run.round, line=view.round_line(seen))
    for row in view.gateway_rows(seen):
        yield f"gw-{row.status.gateway}", fragment("gateway", row=row)
    yield "scores", fragment("scores", **_scores(seen))
    newest = tuple(reversed(seen.rounds[-SHOWN_ROUNDS:]))
    shown = {"rounds": newest, "paces": paces, "run_id": status.run_id}
    yield "rounds", fragment("rounds", count=len(seen.rounds), **shown)
    values = view.values_of(seen.run.plan, status)
    yield "values", fragment("values", names=VALUE_NAMES, gateways=values)
    yield "model", fragment("model", status=status)
    if status.has_ended:
        yield "actions", fragment("actions")


def _scores(seen: Seen) -> dict[str, object]:
    """Return the scores of the public splits, and a chart of those that come with each round."""
    scores = seen.status.scores
    dev = [(each.round, 100 * each.f1) for each in scores if each.split == "dev"]
    return {
        "scores": tuple(reversed(scores)),
        "chart": chart_of(dev, last=seen.status.rounds),
        "newest": dev[-1] if dev else None,
        "best": max(dev, key=lambda each: each[1]) if dev else None,
    }
