"""The audit log in SQL: appended to behind the fence, each record chained to the one before.

What belongs to an event of a run is written in the event's own transaction: neither is ever there
without the other. One function is for whoever has something to put on record: `record`, or within
a transaction that is open already, `append`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import insert, select

from common.audit import EMPTY, Checkpoint, Head, Line, Sealed, line_after, sign
from common.errors import ConflictError
from orchestrator.database import AUDIT_CHECKPOINTS, AUDIT_RECORDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from sqlalchemy import Connection

    from common.audit import Entry
    from common.clock import Clock
    from orchestrator.fencing import Fence

log = structlog.get_logger()

SEAL_S = 60.0  # between checkpoints, where something went on record
SEALED_EVERY = 1000  # records have a checkpoint at the latest
PAGE = 500  # records or checkpoints in one answer
LINKS = 1 << 12  # in one answer: 128 KiB
FRESH_S = 1.0  # a checkpoint may be handed out again before this process asks whether it leads


class AuditLogDamaged(ConflictError):
    """The log does not hold what a checkpoint of its own stands for."""

    def __init__(self, newest: Checkpoint) -> None:
        super().__init__(
            f"record {newest.sequence} of the audit log is not the one that was signed on "
            f"{newest.at}: nothing more is signed; see `fedgate audit verify`, and restore the "
            "database from a backup that is whole"
        )


class NothingOnRecord(ConflictError):
    """The log is empty."""

    def __init__(self) -> None:
        super().__init__("nothing is on record yet: ask again once the orchestrator serves")


class AuditLog:
    """Who did what, in the order of writing; lives on the event loop."""

    def __init__(
        self,
        fence: Fence,
        clock: Clock,
        federation: str,
        key: Callable[[], Ed25519PrivateKey],
    ) -> None:
        """Write behind `fence`; sign checkpoints with what `key` returns."""
        self._fence = fence
        self._clock = clock
        self.federation = federation
        self._key = key
        self._sealed: Checkpoint | None = None  # which covers every record
        self._sealed_at = 0.0
        self._links: tuple[int, int, bytes] = (0, 0, b"")  # that were asked for last

    def append(self, connection: Connection, *entries: Entry) -> None:
        """Put `entries` on record, as durably as the transaction that this is part of."""
        self._sealed = None
        for entry in entries:
            line = line_after(_head(connection), entry, at=self._now(), salt=secrets.token_hex(16))
            connection.execute(insert(AUDIT_RECORDS).values(vars(line)))
            if line.sequence % SEALED_EVERY == 0:
                self._seal(connection)

    def record(self, *entries: Entry) -> None:
        """Put `entries` on record; durable when this returns.

        Raises:
            Superseded, JournalFailed: they could not be written.
        """
        with self._fence.writing() as connection:
            self.append(connection, *entries)

    def seal(self) -> Checkpoint | None:
        """Return the newest checkpoint, which covers every record; None: there is no record.

        Raises:
            AuditLogDamaged: what was signed before is not there any more.
            Superseded, JournalFailed: it could not be kept.
        """
        with self._fence.writing() as connection:
            newest = self._seal(connection)
            is_borne_out = newest is None or newest.head == _head(connection)
        if newest is not None and not is_borne_out:
            raise AuditLogDamaged(newest)
        self._sealed, self._sealed_at = newest, self._clock.now()
        return newest

    def records(self, after: int) -> tuple[Line, ...]:
        """Return the records that follow record `after`, the first PAGE of them."""
        later = select(AUDIT_RECORDS).where(AUDIT_RECORDS.c.sequence > after)
        with self._fence.reading() as connection:
            rows = connection.execute(later.order_by(AUDIT_RECORDS.c.sequence).limit(PAGE))
            return tuple(Line(row.sequence, bytes(row.body), row.hash) for row in rows)

    def length(self) -> int:
        """Return how many records there are."""
        with self._fence.reading() as connection:
            return _head(connection).sequence

    def checkpoints(self, after: int) -> tuple[Checkpoint, ...]:
        """Return the checkpoints after record `after`, the first PAGE of them."""
        later = select(AUDIT_CHECKPOINTS).where(AUDIT_CHECKPOINTS.c.sequence > after)
        with self._fence.reading() as connection:
            rows = connection.execute(later.order_by(AUDIT_CHECKPOINTS.c.sequence).limit(PAGE))
            return tuple(Checkpoint(self.federation, *row) for row in rows)

    def links(self, after: int, through: int) -> bytes:
        """Return what leads from record `after` to record `through`, or the first LINKS of it."""
        wanted = AUDIT_RECORDS.c.sequence.between(after + 1, min(through, after + LINKS))
        question = select(AUDIT_RECORDS).where(wanted).order_by(AUDIT_RECORDS.c.sequence)
        with self._fence.reading() as connection:
            rows = connection.execute(question)
            return b"".join(Line(row.sequence, bytes(row.body), row.hash).link for row in rows)

    def sealed(self, after: int) -> Sealed:
        """Return the newest checkpoint, which covers every record, and what leads to it.

        Raises:
            NothingOnRecord: there is none yet.
            AuditLogDamaged, Superseded, JournalFailed: as `seal`.
        """
        is_fresh = self._clock.now() - self._sealed_at < FRESH_S
        checkpoint = self._sealed if self._sealed is not None and is_fresh else self.seal()
        if checkpoint is None:
            raise NothingOnRecord
        if self._links[:2] != (after, checkpoint.sequence):  # most ask for the same
            links = self.links(after, checkpoint.sequence)
            self._links = (after, checkpoint.sequence, links)
        return Sealed(checkpoint, self._links[2])

    def _seal(self, connection: Connection) -> Checkpoint | None:
        """Sign the head unless it is; return the newest checkpoint, or the one not borne out."""
        head, newest = _head(connection), _newest(connection, self.federation)
        if newest is not None and not _has(connection, newest.head):
            log.error("audit_log_damaged", record=newest.sequence, signed_at=newest.at)
            return newest
        if head == EMPTY or (newest is not None and newest.head == head):
            return newest
        fresh = sign(self._key(), self.federation, head, self._now())
        row = {name: value for name, value in vars(fresh).items() if name != "federation"}
        connection.execute(insert(AUDIT_CHECKPOINTS).values(row))
        return fresh

    def _now(self) -> str:
        return self._clock.wall().isoformat(timespec="microseconds")


def _head(connection: Connection) -> Head:
    places = select(AUDIT_RECORDS.c.sequence, AUDIT_RECORDS.c.hash)
    row = connection.execute(places.order_by(AUDIT_RECORDS.c.sequence.desc()).limit(1)).first()
    return EMPTY if row is None else Head(row.sequence, row.hash)


def _has(connection: Connection, head: Head) -> bool:
    there = select(AUDIT_RECORDS.c.hash).where(AUDIT_RECORDS.c.sequence == head.sequence)
    return connection.scalar(there) == head.hash


def _newest(connection: Connection, federation: str) -> Checkpoint | None:
    question = select(AUDIT_CHECKPOINTS).order_by(AUDIT_CHECKPOINTS.c.sequence.desc()).limit(1)
    row = connection.execute(question).first()
    return None if row is None else Checkpoint(federation, *row)
