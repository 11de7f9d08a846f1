"""Where the orchestrator's audit log was seen to stand, and whether it only grew since.

The last checkpoints are kept, and with them every one that tells another story: it is signed, and
so the proof of it. One that does is never gone on from, unless an administrator accepts it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from common.audit import EMPTY, LINK_BYTES, Checkpoint, Head, Sealed
from gateway.ledger_tables import AUDIT_HEADS, ORCHESTRATOR

KEPT = 64  # checkpoints that fit
KEPT_PROBLEMS = 64  # that do not: the first ones


@dataclass(frozen=True)
class Seen:
    """A checkpoint, and what is wrong with it."""

    checkpoint: Checkpoint
    problem: str  # empty: nothing
    accepted: bool  # its problem was, by an administrator

    @property
    def holds(self) -> bool:
        """Whether later checkpoints may go on from it."""
        return self.accepted or not self.problem


def see(connection: Connection, sealed: Sealed) -> str:
    """Keep a checkpoint; return what is wrong with it, or nothing.

    Args:
        connection: to the ledger.
        sealed: the checkpoint, and all links that lead to it from `head_of`.
    """
    problem = _problem(connection, sealed)
    checkpoint = sealed.checkpoint
    known = [each for each in heads(connection) if each.checkpoint.head == checkpoint.head]
    if any(each.problem == problem for each in known):
        return problem
    if problem and _count_problems(connection) >= KEPT_PROBLEMS:
        return problem
    row = {**vars(checkpoint), "problem": problem, "accepted": False}
    connection.execute(insert(AUDIT_HEADS).values(row))
    _tidy(connection)
    return problem


def head_of(connection: Connection) -> Head:
    """Return the place that later checkpoints must go on from."""
    newest = _newest(connection)
    return EMPTY if newest is None else newest.checkpoint.head


def heads(connection: Connection) -> tuple[Seen, ...]:
    """Return all that is kept, as it was seen."""
    return tuple(map(_seen, connection.execute(select(AUDIT_HEADS).order_by(AUDIT_HEADS.c.seen))))


def accept(connection: Connection) -> Seen | None:
    """Go on from the last checkpoint that told another story; None: there is none."""
    open_ones = AUDIT_HEADS.c.problem != "", AUDIT_HEADS.c.accepted.is_(False)
    question = select(AUDIT_HEADS).where(*open_ones).order_by(AUDIT_HEADS.c.seen.desc()).limit(1)
    row = connection.execute(question).first()
    if row is None:
        return None
    connection.execute(update(AUDIT_HEADS).where(*open_ones).values(accepted=True))
    return _seen(row)


def _problem(connection: Connection, sealed: Sealed) -> str:
    checkpoint, before = sealed.checkpoint, _newest(connection)
    if not checkpoint.is_genuine():
        return f"the signature under record {checkpoint.sequence} is not one"
    key = connection.scalar(select(ORCHESTRATOR.c.public_key))
    key = key or (before and before.checkpoint.public_key) or checkpoint.public_key
    if checkpoint.public_key != key:
        return f"it is signed by {checkpoint.public_key}, the orchestrator is known by {key}"
    if before is None:
        return ""
    if before.checkpoint.federation != checkpoint.federation:
        return f"it is of federation {checkpoint.federation!r}"
    return _forked(before.checkpoint.head, sealed)


def _forked(before: Head, sealed: Sealed) -> str:
    """Return how the log is not the one that was seen before, grown; or nothing."""
    now, seen = sealed.checkpoint.head, f"record {before.sequence} ({before.hash[:12]}) was seen"
    if now.sequence < before.sequence:
        return f"the log ends at record {now.sequence}, and {seen}: it was cut, or rolled back"
    if now.sequence - before.sequence > len(sealed.links) // LINK_BYTES:
        return f"what leads to record {now.sequence} was not shown, and {seen}"
    place = before
    for number in range(now.sequence - before.sequence):
        place = place.after(sealed.links[number * LINK_BYTES : (number + 1) * LINK_BYTES])
    if place != now:
        return f"record {now.sequence} ({now.hash[:12]}) does not follow, and {seen}: it was forked"
    return ""


def _newest(connection: Connection) -> Seen | None:
    holds = (AUDIT_HEADS.c.problem == "") | AUDIT_HEADS.c.accepted.is_(True)
    question = select(AUDIT_HEADS).where(holds).order_by(AUDIT_HEADS.c.seen.desc()).limit(1)
    row = connection.execute(question).first()
    return None if row is None else _seen(row)


def _seen(row: Row[tuple[object, ...]]) -> Seen:
    fields = row._asdict()
    problem, accepted = fields.pop("problem"), fields.pop("accepted")
    del fields["seen"]
    return Seen(Checkpoint(**fields), problem, accepted)


def _count_problems(connection: Connection) -> int:
    question = select(func.count()).select_from(AUDIT_HEADS).where(AUDIT_HEADS.c.problem != "")
    return int(connection.scalar(question) or 0)


def _tidy(connection: Connection) -> None:
    """Let the oldest go that fit."""
    fits = AUDIT_HEADS.c.problem == ""
    newest = select(AUDIT_HEADS.c.seen).where(fits).order_by(AUDIT_HEADS.c.seen.desc()).limit(KEPT)
    connection.execute(delete(AUDIT_HEADS).where(fits, AUDIT_HEADS.c.seen.not_in(newest)))
