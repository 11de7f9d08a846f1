"""How long the phases of rounds took and how many bytes they moved, as this process has seen it.

Nothing of it is in the journal: a restart begins anew, and what was before is not shown.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.events import Restarted, RoundOpened
from orchestrator.rounds import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from common.ids import RunId
    from orchestrator.auditing import Step
    from orchestrator.live_runs import LiveRun, LiveRuns
    from orchestrator.runs import Run

KEPT_RUNS, KEPT_ROUNDS = 32, 512  # the newest

Opening = tuple[int, int]  # a round's number, and which attempt at it


@dataclass(frozen=True)
class Pace:
    """One attempt at a round; None: it has not come so far, or this process has not seen it."""

    began_s: float
    bytes_sent: int  # of weights, while it was open; until then: of the run before it
    bytes_received: int  # of updates, likewise
    collected_s: float | None = None  # it waited for updates: fetching, training, sending
    published_s: float | None = None  # it made new weights of them
    is_over: bool = False


class Paces:
    """Looks on at the events of runs as they are recorded; lives on the event loop."""

    def __init__(self, runs: LiveRuns) -> None:
        self._runs = runs
        self._paces: OrderedDict[RunId, OrderedDict[Opening, Pace]] = OrderedDict()
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        runs.watchers.append(self.see)

    def of(self, live: LiveRun) -> Mapping[Opening, Pace]:
        """Return the newest attempts of a run; of the open one what it has moved so far."""
        known = self._paces.get(live.run.run_id, OrderedDict())
        return {
            opening: pace if pace.is_over else _moved(pace, live) for opening, pace in known.items()
        }

    def see(self, step: Step) -> None:
        """Take note of one event of a run."""
        before, after = _opening(step.before), _opening(step.after)
        run_id = step.after.run_id
        of_run = self._paces.get(run_id, OrderedDict())
        if isinstance(step.event, Restarted):
            self._paces.pop(run_id, None)
        elif before is not None and (pace := of_run.get(before)) is not None and not pace.is_over:
            of_run[before] = self._after(pace, step)
        if isinstance(step.event, RoundOpened) and after is not None:
            self._begin(run_id, after)

    def _begin(self, run_id: RunId, opening: Opening) -> None:
        live = self._runs.get(run_id)
        of_run = self._paces.setdefault(run_id, OrderedDict())
        of_run[opening] = Pace(self._now(), live.bytes_sent, live.bytes_received)
        self._paces.move_to_end(run_id)
        if len(of_run) > KEPT_ROUNDS:
            of_run.popitem(last=False)
        if len(self._paces) > KEPT_RUNS:
            self._paces.popitem(last=False)

    def _after(self, pace: Pace, step: Step) -> Pace:
        was, now = _phase(step.before), _phase(step.after)
        has_ended = step.after.has_ended or isinstance(step.event, RoundOpened)
        if now is was and not has_ended:
            return pace
        passed_s = self._now() - pace.began_s
        if was is Phase.COLLECTING:
            pace = replace(pace, collected_s=passed_s)
        if now is Phase.CLOSED and pace.collected_s is not None:
            pace = replace(pace, published_s=passed_s - pace.collected_s)
        if now in {Phase.CLOSED, Phase.ABANDONED} or has_ended:
            pace = replace(_moved(pace, self._runs.get(step.after.run_id)), is_over=True)
        return pace


def _moved(pace: Pace, live: LiveRun) -> Pace:
    sent, received = live.bytes_sent - pace.bytes_sent, live.bytes_received - pace.bytes_received
    return replace(pace, bytes_sent=sent, bytes_received=received)


def _opening(run: Run) -> Opening | None:
    return None if run.round is None else (run.round.number, run.round.attempt)


def _phase(run: Run) -> Phase | None:
    return None if run.round is None else run.round.phase
