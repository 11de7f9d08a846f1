"""Append-only events in SQL; a run is the fold of its own.

Every append names its place (run, sequence) and its writer's epoch, and is checked against both in
its own transaction.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from pydantic import TypeAdapter
from sqlalchemy import exists, insert, null, select, update

from common.ids import PlanId, RunId
from common.signatures import PlanSignature
from orchestrator.database import EVENTS, RUNS
from orchestrator.events import RunCancelled, RunCompleted, RunEvent, RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from sqlalchemy import Connection, Row

    from common.clock import Clock
    from orchestrator.fencing import Fence

    Also: TypeAlias = Callable[[Connection], None]

_ADAPTERS: dict[str, TypeAdapter[RunEvent]] = {
    kind.__name__: TypeAdapter(kind) for kind in get_args(RunEvent)
}
_ENDS = tuple(kind.__name__ for kind in (RunCompleted, RunFailed, RunCancelled))
_HAS_ENDED = exists().where(EVENTS.c.run_id == RUNS.c.run_id, EVENTS.c.kind.in_(_ENDS))


def nothing_else(_connection: Connection) -> None:
    """Write nothing beside the events."""


@dataclass(frozen=True)
class StoredRun:
    """A run as the journal holds it."""

    run_id: RunId
    plan: bytes
    plan_digest: PlanId
    events: tuple[RunEvent, ...]
    signature: PlanSignature | None = None  # None: of before plans were signed


class Journal:
    """The events of every run."""

    def __init__(self, fence: Fence, clock: Clock) -> None:
        self._fence = fence
        self._clock = clock

    def create_run(
        self,
        run_id: RunId,
        plan: bytes,
        plan_digest: PlanId,
        first: RunEvent,
        signature: PlanSignature | None = None,
        also: Also = nothing_else,
    ) -> None:
        """Store a run, who has ordered it, its first event and what is written `also`, at once."""
        row: dict[str, object] = {"run_id": run_id, "plan": plan, "plan_digest": plan_digest}
        row["plan_signature"] = null() if signature is None else asdict(signature)
        with self._fence.writing() as connection:
            connection.execute(insert(RUNS).values(**row, created_at=self._clock.wall()))
            connection.execute(insert(EVENTS), [self._row(run_id, 1, first)])
            also(connection)

    def sign_run(self, run_id: RunId, signature: PlanSignature) -> None:
        """Store who has ordered a run of before plans were signed."""
        unsigned = (RUNS.c.run_id == run_id, RUNS.c.plan_signature.is_(null()))
        with self._fence.writing() as connection:
            fresh = update(RUNS).where(*unsigned)
            connection.execute(fresh.values(plan_signature=asdict(signature)))

    def append(
        self,
        run_id: RunId,
        after: int,
        events: Sequence[RunEvent],
        also: Also = nothing_else,
    ) -> None:
        """Store `events` after the first `after` ones of the run, in one transaction.

        Args:
            run_id: whose events they are.
            after: how many the journal has.
            events: what has happened since.
            also: writes what must not be there without them.

        Raises:
            Superseded: another orchestrator took over.
            JournalFailed: the database did not take them; or it did, and could not say so any more.
        """
        rows = [self._row(run_id, after + place, each) for place, each in enumerate(events, 1)]
        with self._fence.writing() as connection:
            connection.execute(insert(EVENTS), rows)
            also(connection)

    def names(self, *, ended: bool | None = None) -> tuple[RunId, ...]:
        """Return the name of every run, or of those that have ended or not, the oldest first."""
        question = select(RUNS.c.run_id).order_by(RUNS.c.created_at)
        if ended is not None:
            question = question.where(_HAS_ENDED if ended else ~_HAS_ENDED)
        with self._fence.reading() as connection:
            return tuple(map(RunId, connection.scalars(question)))

    def runs(self, *, ended: bool | None = None) -> Iterator[StoredRun]:
        """Yield runs with their events, as `names` orders them; one at a time is in memory."""
        for run_id in self.names(ended=ended):
            if (stored := self.run(run_id)) is not None:
                yield stored

    def run(self, run_id: RunId) -> StoredRun | None:
        """Return one run with its events, or None if there is none of that name."""
        with self._fence.reading() as connection:
            row = connection.execute(select(RUNS).where(RUNS.c.run_id == run_id)).one_or_none()
        return None if row is None else _stored(row, self.events(run_id, after=0))

    def plan(self, run_id: RunId) -> bytes | None:
        """Return the bytes of a run's plan, or None if there is none of that name."""
        with self._fence.reading() as connection:
            ours = select(RUNS.c.plan).where(RUNS.c.run_id == run_id)
            found = connection.execute(ours).scalar_one_or_none()
        return None if found is None else bytes(found)

    def events(self, run_id: RunId, *, after: int) -> tuple[RunEvent, ...]:
        """Return the events of a run that follow the first `after` ones."""
        later = (EVENTS.c.run_id == run_id, EVENTS.c.sequence > after)
        question = select(EVENTS).where(*later).order_by(EVENTS.c.sequence)
        with self._fence.reading() as connection:
            return tuple(map(_event, connection.execute(question)))

    def _row(self, run_id: RunId, sequence: int, event: RunEvent) -> dict[str, Any]:
        kind = type(event).__name__
        return {
            "run_id": run_id,
            "sequence": sequence,
            "epoch": self._fence.epoch,
            "kind": kind,
            "payload": _ADAPTERS[kind].dump_python(event, mode="json"),
            "recorded_at": self._clock.wall(),
        }


def _event(row: Row[Any]) -> RunEvent:
    return _ADAPTERS[row.kind].validate_python(row.payload)


def _stored(row: Row[Any], events: tuple[RunEvent, ...]) -> StoredRun:
    kept = row.plan_signature
    signature = None if kept is None else PlanSignature(**kept)
    return StoredRun(RunId(row.run_id), row.plan, PlanId(row.plan_digest), events, signature)
