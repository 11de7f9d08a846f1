"""Mistakes of those who write: of the journal, of its epochs, of what is said too early."""

from __future__ import annotations

import asyncio

from sqlalchemy import UniqueConstraint, select

from common.protocol import Receipt
from orchestrator import rounds as rounds_of
from orchestrator.database import EPOCHS, EVENTS
from orchestrator.events import UpdateLost
from orchestrator.fencing import Fence
from orchestrator.in_process import InProcessClient
from orchestrator.live_runs import LiveRun, LiveRuns
from orchestrator.orchestrator import Orchestrator
from tests.simulation.planting import put


def no_unique_key() -> None:
    """What may have been recorded is recorded again, and nothing in the database forbids it."""
    (unique,) = (c for c in EVENTS.constraints if isinstance(c, UniqueConstraint))
    EVENTS.constraints.discard(unique)
    put(LiveRuns, "doubt", lambda self, live, *, lost_sum=False: None)


def stale_epoch_accepted() -> None:
    put(Fence, "writing", Fence.reading)


def epoch_never_raised() -> None:
    def init(self, engine) -> None:
        self._engine = engine
        with self.reading() as connection:
            self.epoch = connection.execute(select(EPOCHS.c.epoch)).scalar_one()

    put(Fence, "__init__", init)


def receipt_before_journal() -> None:
    sound = InProcessClient.submit_update

    async def submit_update(self, header, chunks) -> Receipt:
        task = asyncio.create_task(sound(self, header, chunks))
        await asyncio.sleep(0.001)
        if task.done():
            return await task
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Receipt(header.key, header.body.digest)

    put(InProcessClient, "submit_update", submit_update)


def restart_not_recorded() -> None:
    """What was received before a restart counts, although the sum has lost it."""

    def resume(self, stored) -> LiveRun:
        record, self.record = self.record, lambda live, *events: None
        try:
            live = sound(self, stored)
        finally:
            self.record = record
        live.deadline = self._clock.now() + max(self._grace_s, live.run.left_s)
        return live

    sound = put(LiveRuns, "_resume", resume)


def blind_to_successor() -> None:
    async def look(self) -> None:
        pass

    put(Orchestrator, "_look_for_successor", look)


def lost_after_abandoned() -> None:
    """The bug that the simulation found first: a second loss does not fit an abandoned round."""
    sound = rounds_of._after_the_end

    def after_the_end(state, event):
        if isinstance(event, UpdateLost):
            raise rounds_of.IllegalTransition(f"a round that is {state.phase.value}", event)
        return sound(state, event)

    put(rounds_of, "_after_the_end", after_the_end)


def journal_ahead() -> None:
    """A process goes on beside a journal that holds more than it knows, or another writer."""
    put(LiveRuns, "halt", lambda self, error: None)
