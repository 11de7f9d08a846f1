"""The chain of records in the ledger's database, and whether the other tables agree with it."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select

from gateway.charges import LedgerUnreadable
from gateway.ledger_rows import facts_of_charge
from gateway.ledger_tables import CHARGES, RECORDS, REFUSED_PARENTS, RUNS, STAMP
from gateway.records import (
    EMPTY,
    Facts,
    Head,
    Kind,
    Record,
    RecordBroken,
    after,
    canonical,
    check_chain,
    holds,
)
from gateway.spending import Spent, spent_in

CHARGED = select(CHARGES, *(column for column in RUNS.c if column.name != "run")).join(
    RUNS, RUNS.c.run == CHARGES.c.run
)


class UnrecordedCharge(LedgerUnreadable):
    """A round is booked that no record of the chain speaks of."""

    def __init__(self, run: str, number: int) -> None:
        super().__init__(f"round {number} of run {run!r} is booked and no record says so")


def append(connection: Connection, kind: Kind, facts: Facts) -> Record:
    """Write the next record; as durable as the transaction that it is part of."""
    record = after(head_of(connection), kind, facts)
    row = {**vars(record), "kind": str(kind)}
    connection.execute(insert(RECORDS).values(row))
    return record


def head_of(connection: Connection) -> Head:
    """Return the place of the last record."""
    newest = select(RECORDS.c.sequence, RECORDS.c.hash).order_by(RECORDS.c.sequence.desc()).limit(1)
    row = connection.execute(newest).one_or_none()
    return EMPTY if row is None else Head(row.sequence, row.hash)


def records_of(connection: Connection, kind: Kind | None = None) -> tuple[Record, ...]:
    """Return all records, or those of one kind, in their order."""
    wanted = select(RECORDS).order_by(RECORDS.c.sequence)
    if kind is not None:
        wanted = wanted.where(RECORDS.c.kind == str(kind))
    return tuple(Record(*row) for row in connection.execute(wanted))


def has(connection: Connection, head: Head) -> bool:
    """Whether all that `head` stands for is in this ledger, or was answered for in a merge."""
    there = select(RECORDS.c.hash).where(RECORDS.c.sequence == head.sequence)
    if connection.scalar(there) == head.hash:
        return True
    return holds(records_of(connection, Kind.MERGE), head)


def merged(connection: Connection) -> tuple[Spent, ...]:
    """Return what was spent and is not booked here: it came with merges."""
    if not records_of(connection, Kind.MERGE):
        return ()
    return tuple(each for each in spent_in(records_of(connection)) if not each.is_own)


def verify(connection: Connection) -> Head:
    """Return the head of a chain that is whole and says what the other tables say.

    Raises:
        RecordBroken: a record was changed, or is missing, or what it says is not booked.
        UnrecordedCharge: a charge is booked that no record speaks of.
    """
    records = records_of(connection)
    head = check_chain(records)
    _check_charges(connection, [each for each in records if each.kind == Kind.CHARGE])
    _check_refused(connection, [each for each in records if each.kind == Kind.REFUSED_PARENT])
    return head


def _check_charges(connection: Connection, records: Sequence[Record]) -> None:
    booked = {(row.run, row.round): row for row in connection.execute(CHARGED)}
    insecure = bool(connection.scalar(select(STAMP.c.insecure_deterministic)))
    for record in records:
        facts = record.content
        row = booked.pop((facts["run"], facts["round"]), None)
        if row is None or facts_of_charge(row, facts["mark"], insecure=insecure) != facts:
            raise RecordBroken(record.sequence, "the charge that it speaks of is not booked so")
    for run, number in booked:
        raise UnrecordedCharge(run, number)


def _check_refused(connection: Connection, records: Sequence[Record]) -> None:
    noted = {canonical(row._asdict()) for row in connection.execute(select(REFUSED_PARENTS))}
    for record in records:
        if record.facts not in noted:
            raise RecordBroken(record.sequence, "the refusal that it speaks of is not noted")
