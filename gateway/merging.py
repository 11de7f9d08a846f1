"""A merge: what another image of the ledger holds, or an administrator states, is taken in.

Nothing is ever lowered: the merge is one more record, which holds every record of the other image
that this ledger lacks and every charge that is stated, and answers for the heads of both. Secrets
are not taken over, so a round that came with a merge is never trained here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

from common.accounting import PrivacyEvent, round_event
from common.errors import ConflictError, RequestError
from common.ids import GatewayId, RunId
from common.plan import Unit
from gateway import bookings, countersignatures, ledger_chain
from gateway.charges import RunTerms
from gateway.countersignatures import OrchestratorKeyChanged
from gateway.data_sets import forget_uncharged
from gateway.ledger import Ledger
from gateway.ledger_tables import DATA_SETS, RUNS, UNITS
from gateway.records import Facts, Head, Kind, Record, flattened, holds
from gateway.spending import Spent, spent_in


@dataclass(frozen=True)
class Assumption:
    """Rounds of a run whose records are lost."""

    run: RunId
    rounds: int  # at least as many as were charged


@dataclass(frozen=True)
class Statement:
    """What an administrator answers for, where no image is left to tell."""

    data_set: str  # of runs that the ledger does not know
    assumptions: tuple[Assumption, ...] = ()
    each_round: PrivacyEvent | None = None  # what one round of a run unknown here has cost
    nothing_is_missing: bool = False
    unit: Unit | None = None  # of a run unknown here; None: the one that its data are charged under

    @property
    def is_made(self) -> bool:
        """Whether anything is stated at all."""
        return bool(self.assumptions) or self.nothing_is_missing


@dataclass(frozen=True)
class Merged:
    """What a merge took in, and where the ledger stands after it."""

    head: Head
    taken: int  # records of the other image
    assumed: tuple[Spent, ...]


class ForeignImage(RequestError):
    """What is offered for a merge is another gateway's ledger, or one begun anew."""

    field = "image"

    def __init__(self) -> None:
        super().__init__(
            "the image is not of this ledger: its key of the data's digests is another; state what "
            "was charged in it with --assume-rounds instead"
        )


class NothingToMerge(RequestError):
    """The other image holds nothing more, and nothing is stated."""

    def __init__(self) -> None:
        super().__init__(
            "there is nothing to merge: the image holds no record that this ledger lacks, and no "
            "missing rounds are stated; nothing was changed"
        )


class MergeFallsShort(ConflictError):
    """What was countersigned is in neither image."""

    def __init__(self, head: Head) -> None:
        super().__init__(
            f"the orchestrator has countersigned record {head.sequence} ({head.hash[:12]}), which "
            "is neither in this ledger nor in the image: give a newer image too, or state what is "
            "missing with --assume-rounds RUN:N; nothing was changed"
        )


class CostUnknown(RequestError):
    """Rounds are stated of a run whose terms are lost as well."""

    field = "assume_rounds"

    def __init__(self, run: RunId) -> None:
        super().__init__(
            f"run {run!r} has no charge in this ledger: state what one round of it has cost with "
            "--noise-multiplier, --sampling-rate, --steps and --unit, as its plan and this "
            "gateway's settings had them; nothing was changed"
        )


def merge(ledger: Ledger, gateway: GatewayId, other: Ledger | None, statement: Statement) -> Merged:
    """Take in what `other` holds and what is stated; one transaction, one record.

    Raises:
        ForeignImage: `other` is no image of this ledger.
        NothingToMerge, MergeFallsShort, CostUnknown: as they say; nothing was changed.
    """
    if other is not None and other.data_key != ledger.data_key:
        raise ForeignImage
    theirs = () if other is None else other.records()
    with ledger.transaction() as connection:
        if other is not None and (word := other.countersigned()) is not None:
            with suppress(OrchestratorKeyChanged):  # this ledger has been told of a newer key
                countersignatures.keep(connection, gateway, word)
        ours, before = ledger_chain.records_of(connection), ledger_chain.head_of(connection)
        known = {record.hash for record in flattened(ours)}
        taken = tuple(record for record in theirs if record.hash not in known)
        if other is not None:
            _unite_tables(connection, other, taken)
        assumed = _assumed(connection, statement, spent_in((*ours, *taken)))
        orchestrator = countersignatures.confirmed(connection)
        is_held = orchestrator is None or holds((*ours, *theirs), orchestrator)
        if orchestrator is not None and not (is_held or statement.is_made):
            raise MergeFallsShort(orchestrator)
        if is_held and not taken and not assumed:
            raise NothingToMerge
        facts: Facts = {
            "ours": before.to_facts(),
            "theirs": theirs[-1].head.to_facts() if theirs else None,
            "orchestrator": orchestrator.to_facts() if orchestrator else None,
            "taken": [record.to_json() for record in taken],
            "assumed": [each.to_facts() for each in assumed],
        }
        record = ledger_chain.append(connection, Kind.MERGE, facts)
    return Merged(record.head, len(taken), assumed)


def _assumed(
    connection: Connection, statement: Statement, spent: Sequence[Spent]
) -> tuple[Spent, ...]:
    """Return the charges that are stated: of rounds after the last one that is known."""
    found: list[Spent] = []
    for assumption in statement.assumptions:
        run = assumption.run
        known = [each.round for each in (*spent, *found) if each.run == run]
        terms = bookings.find_terms(connection, run) if known else None
        units = {each.unit for each in spent if each.data_set == statement.data_set}
        one, last = _one_round(run, terms, statement, units), max(known, default=0)
        found += (replace(one, round=last + more) for more in range(1, assumption.rounds + 1))
    return tuple(found)


def _one_round(run: RunId, terms: RunTerms | None, statement: Statement, units: set[Unit]) -> Spent:
    """Return what a round costs: on the terms of a charged run, or as stated.

    `units` are those under which the statement's data set was charged, as far as is known.

    Raises:
        CostUnknown: there are neither. Terms on which nothing was charged may have been replaced.
    """
    if terms is not None:
        name, event, unit = terms.data.name, round_event(terms.effective), terms.unit
    elif statement.each_round is not None and (statement.unit or len(units) == 1):
        name, event, unit = statement.data_set, statement.each_round, statement.unit or min(units)
    else:
        raise CostUnknown(run)
    return Spent(run, 0, name, event, is_own=False, is_assumed=True, unit=unit)


def _unite_tables(connection: Connection, other: Ledger, taken: Sequence[Record]) -> None:
    """Take over what names the data and the runs of the charges in `taken`.

    What this ledger ties a charged name to stays; the units of both are known by it from now on.
    """
    charges = [each.content for each in flattened(taken) if each.kind == Kind.CHARGE]
    names = sorted({facts["data_set"] for facts in charges})
    runs = sorted({facts["run"] for facts in charges})
    forget_uncharged(connection)
    with other.transaction() as source:
        for table, of_these in (
            (DATA_SETS, DATA_SETS.c.name.in_(names)),
            (UNITS, UNITS.c.data_set.in_(names)),
            (RUNS, RUNS.c.run.in_(runs)),
        ):
            rows = source.execute(select(table).where(of_these))
            _add(connection, table, (row._asdict() for row in rows))


def _add(connection: Connection, table: Table, rows: Iterable[Facts]) -> None:
    found = [dict(row) for row in rows]
    if found:
        connection.execute(insert_or_ignore(table).on_conflict_do_nothing(), found)
