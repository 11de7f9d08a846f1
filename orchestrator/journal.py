"""Append-only events in SQL; a run is the fold of its own.

Every append names its place (run, sequence) and its writer's epoch, and is checked against both in
its own transaction: of two processes over one database, only the one that started last can write.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import structlog
from pydantic import TypeAdapter
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import DBAPIError

from common.errors import UnavailableError
from common.ids import PlanId, RunId
from orchestrator.database import EPOCHS, EVENTS, RUNS
from orchestrator.events import RunEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from common.clock import Clock

log = structlog.get_logger()

_ADAPTERS: dict[str, TypeAdapter[RunEvent]] = {
    kind.__name__: TypeAdapter(kind) for kind in get_args(RunEvent)
}


class Superseded(UnavailableError):
    """Another orchestrator took over the journal; this process must stop acting."""

    def __init__(self, *, mine: int, current: int) -> None:
        super().__init__(
            f"another orchestrator took over (writer {current}, this one is {mine}): "
            "connect again to reach it"
        )


class JournalFailed(UnavailableError):
    """The database did not take what had to be recorded; nothing was changed."""

    def __init__(self) -> None:
        super().__init__("the orchestrator's journal failed, its log says why: try again later")


@dataclass(frozen=True)
class StoredRun:
    """A run as the journal holds it."""

    run_id: RunId
    plan: bytes
    plan_digest: PlanId
    events: tuple[RunEvent, ...]


class Journal:
    """The events of every run."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        """Take over: what an older process appends from now on is refused."""
        self._engine = engine
        self._clock = clock
        with engine.begin() as connection:
            connection.execute(update(EPOCHS).values(epoch=EPOCHS.c.epoch + 1))
            self._epoch: int = connection.execute(select(EPOCHS.c.epoch)).scalar_one()

    def create_run(self, run_id: RunId, plan: bytes, plan_digest: PlanId, first: RunEvent) -> None:
        """Store a new run and its first event, in one transaction."""
        row = {"run_id": run_id, "plan": plan, "plan_digest": plan_digest}
        with self.writing() as connection:
            connection.execute(insert(RUNS).values(**row, created_at=self._clock.wall()))
            connection.execute(insert(EVENTS), [self._row(run_id, 1, first)])

    def append(self, run_id: RunId, after: int, events: Sequence[RunEvent]) -> None:
        """Store `events` after the first `after` ones of the run, in one transaction.

        Raises:
            Superseded: another orchestrator has started since.
            JournalFailed: the database did not take them.
        """
        rows = [self._row(run_id, after + place, each) for place, each in enumerate(events, 1)]
        with self.writing() as connection:
            connection.execute(insert(EVENTS), rows)

    def runs(self) -> Iterator[StoredRun]:
        """Yield every run with its events, the oldest first."""
        by_run: dict[str, list[RunEvent]] = defaultdict(list)
        with self._engine.begin() as connection:
            for row in connection.execute(select(EVENTS).order_by(EVENTS.c.sequence)):
                by_run[row.run_id].append(_ADAPTERS[row.kind].validate_python(row.payload))
            runs = connection.execute(select(RUNS).order_by(RUNS.c.created_at)).all()
        for row in runs:
            events = tuple(by_run.pop(row.run_id))
            yield StoredRun(RunId(row.run_id), row.plan, PlanId(row.plan_digest), events)

    def _row(self, run_id: RunId, sequence: int, event: RunEvent) -> dict[str, Any]:
        kind = type(event).__name__
        return {
            "run_id": run_id,
            "sequence": sequence,
            "epoch": self._epoch,
            "kind": kind,
            "payload": _ADAPTERS[kind].dump_python(event, mode="json"),
            "recorded_at": self._clock.wall(),
        }

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend a transaction in which this process is the one that may write."""
        held = select(EPOCHS.c.epoch).with_for_update(read=True)  # SQLite locks the whole file
        try:
            with self._engine.begin() as connection:
                current: int = connection.execute(held).scalar_one()
                if current != self._epoch:
                    raise Superseded(mine=self._epoch, current=current)
                yield connection
        except DBAPIError as error:
            log.warning("journal_failed", why=str(error.orig))  # names hosts: it stays here
            raise JournalFailed from error
