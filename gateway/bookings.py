"""The statements of a charge, each within a transaction of the ledger's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, func, insert, select
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

from common.ids import RunId
from common.plan import Unit
from gateway import ledger_chain
from gateway.charges import (
    ChargedRound,
    Equivocation,
    RoundCharge,
    RoundMerged,
    RoundNotRepeatable,
    RoundReleased,
    RunNotBegun,
    RunTerms,
    UnitChanged,
)
from gateway.ledger_rows import charge_to_row, event_from_row, facts_of_charge, terms_from_row
from gateway.ledger_tables import CHARGES, REFUSED_PARENTS, RUNS
from gateway.records import Kind

ENOUGH_REFUSED = 16  # parents of one round: an orchestrator may offer more without end


def find_terms(connection: Connection, run: RunId) -> RunTerms | None:
    """Return the terms that `run` was begun with, or None."""
    row = connection.execute(select(RUNS).where(RUNS.c.run == run)).one_or_none()
    return None if row is None else terms_from_row(row)


def check_terms(connection: Connection, charge: RoundCharge) -> None:
    """Raise RunNotBegun or RoundNotRepeatable unless the run was begun on these terms."""
    known = find_terms(connection, charge.terms.run)
    if known is None:
        raise RunNotBegun(charge.terms.run)
    if known != charge.terms:
        raise RoundNotRepeatable(charge.terms.run, known.differences(charge.terms))


def find(connection: Connection, run: RunId, number: int) -> Row[Any] | None:
    """Return the row of a round that is booked, or None."""
    there = select(CHARGES).where(CHARGES.c.run == run, CHARGES.c.round == number)
    return connection.execute(there).one_or_none()


def book(
    connection: Connection, charge: RoundCharge, secret: bytes, mark: bytes, *, insecure: bool
) -> ChargedRound:
    """Write a charge and its record.

    Raises:
        RoundMerged: a merge brought a charge for this round.
        UnitChanged: the data were charged under another unit.
    """
    run, number, terms = charge.terms.run, charge.round, charge.terms
    if any(each.place == (run, number) for each in ledger_chain.merged(connection)):
        raise RoundMerged(run, number)
    if others := units_charged(connection, terms.data.name) - {terms.unit}:
        raise UnitChanged(terms.data.name, charged=others, asked=terms.unit)
    norm = norm_to_begin_with(connection, terms)
    connection.execute(insert(CHARGES).values({**charge_to_row(charge, norm), "secret": secret}))
    one = (CHARGES.c.run == run) & (CHARGES.c.round == number)
    row = connection.execute(ledger_chain.CHARGED.where(one)).one()
    facts = facts_of_charge(row, mark.hex(), insecure=insecure)
    ledger_chain.append(connection, Kind.CHARGE, facts)
    return ChargedRound(charge, secret, norm, update=None, fresh=True)


def norm_to_begin_with(connection: Connection, terms: RunTerms) -> float:
    """Return the clipping norm that the run's next round begins with, in gradient units.

    It is where the round booked last, of those whose update is safe, has come to; before there is
    one, and where clipping is fixed, the one that the run was begun with.
    """
    there = (CHARGES.c.run == terms.run) & CHARGES.c.next_clipping_norm.is_not(None)
    newest = select(CHARGES.c.next_clipping_norm).where(there).order_by(CHARGES.c.sequence.desc())
    norm: float | None = connection.scalar(newest.limit(1))
    return terms.effective.clipping_norm if norm is None else norm


def units_charged(connection: Connection, data_set: str) -> set[Unit]:
    """Return the units under which a data set was charged, here or in an image that was merged."""
    own = select(RUNS.c.unit).join(CHARGES, CHARGES.c.run == RUNS.c.run).distinct()
    merged = {m.unit for m in ledger_chain.merged(connection) if m.data_set == data_set}
    return merged | set(map(Unit, connection.scalars(own.where(RUNS.c.data_set == data_set))))


def note_refusal(connection: Connection, charge: RoundCharge) -> None:
    """Put a second parent on record, once; of one round so many that it is beyond doubt."""
    ours = (REFUSED_PARENTS.c.run == charge.terms.run, REFUSED_PARENTS.c.round == charge.round)
    if connection.execute(select(func.count()).where(*ours)).scalar_one() >= ENOUGH_REFUSED:
        return
    offer = {"run": charge.terms.run, "round": charge.round, "parent": charge.parent}
    fresh = insert_or_ignore(REFUSED_PARENTS).values(offer).on_conflict_do_nothing()
    if connection.execute(fresh).rowcount:
        ledger_chain.append(connection, Kind.REFUSED_PARENT, offer)


def repeat(row: Row[Any], charge: RoundCharge) -> ChargedRound:
    """Return what was booked before; raise what `Ledger.charge` raises of it."""
    run, number = charge.terms.run, charge.round
    if row.parent != charge.parent:
        raise Equivocation(run, number, charged=row.parent, offered=charge.parent)
    if event_from_row(row) != charge.event:
        raise RoundNotRepeatable(run, "event")
    if row.secret is None:
        raise RoundReleased(run, number)
    return ChargedRound(charge, row.secret, row.clipping_norm, row.update_digest, fresh=False)
