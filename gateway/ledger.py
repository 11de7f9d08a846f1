"""The ledger: what has been charged on each data set, written before it is spent.

A charge is one transaction, on the disk before the first batch is read. It is written once for a
round, whatever happens afterwards: a crash, a retry, a reopened round cost nothing more. The
ledger holds facts; epsilon is computed from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from sqlalchemy import Connection, Engine, Row, Select, insert, make_url, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

from common.accounting import Epsilon, PrivacyEvent, epsilon
from common.ids import RunId, WeightsId
from common.randomness import InsecureSeed, system_secret
from gateway import data_sets
from gateway.charges import (
    BookedCharge,
    ChargedRound,
    ChargeState,
    DataSetBinding,
    Equivocation,
    LedgerModeMismatch,
    LedgerUnreadable,
    RoundCharge,
    RoundNotRepeatable,
    RoundReleased,
    RunNotBegun,
    RunTerms,
    UpdateNotRepeatable,
)
from gateway.lease import Lease
from gateway.ledger_marker import mark_made, refuse_lost, refuse_missing
from gateway.ledger_rows import (
    booked_from_row,
    charge_to_row,
    event_from_row,
    terms_from_row,
    terms_to_row,
)
from gateway.ledger_tables import (
    CHARGES,
    REFUSED_PARENTS,
    RUNS,
    STAMP,
    connect,
    connect_to_read,
    file_of,
    pragma,
    readable,
)


class Ledger:
    """One gateway's account of everything that it has released."""

    def __init__(
        self, engine: Engine, lease: Lease | None, seed: InsecureSeed | None, *, exclusive: bool
    ) -> None:
        """Use `Ledger.open`."""
        self._engine = engine
        self._lease = lease
        self._seed = seed
        self._log_holds_secrets = True  # erased ones, perhaps, in the write-ahead log
        if exclusive:
            self._stamp()
            self._empty_log()
        self._data_key = self._stamped_key()

    @classmethod
    def open(cls, url: str, *, seed: InsecureSeed | None = None, exclusive: bool = True) -> Self:
        """Open the ledger at a SQLite URL for this process alone; make it if there is none.

        Args:
            url: `sqlite:////absolute/path`, or `sqlite://` for one that ends with the process.
            seed: under --insecure-deterministic, where the secrets come from instead.
            exclusive: False to read it only, beside the process that holds it; makes nothing.

        Raises:
            LedgerInUse: another process holds it.
            LedgerUnreadable: it is damaged or lost, or there is no folder, or none to read.
            LedgerModeMismatch: it was made in the other mode.
        """
        where = make_url(url)
        path, lease = file_of(where), None
        refuse_lost(path)
        if not exclusive:
            refuse_missing(path)
        with ExitStack() as undo:
            if path is not None and exclusive:
                lease = Lease.take(path)
                undo.callback(lease.release)
            engine = connect(where) if exclusive else connect_to_read(where)
            undo.callback(engine.dispose)
            ledger = cls(engine, lease, seed, exclusive=exclusive)
            if path is not None and exclusive:
                mark_made(path)
            undo.pop_all()
        return ledger

    def close(self) -> None:
        """Let another process open it."""
        self._engine.dispose()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    @property
    def insecure_deterministic(self) -> bool:
        """Whether its secrets come from a seed, so that nothing in it is private."""
        return self._seed is not None

    def bind_data_set(self, name: str, content_digests: Sequence[bytes]) -> DataSetBinding:
        """Tie a data set's name to its content; see `gateway.data_sets.bind`."""
        with self._transaction() as connection:
            return data_sets.bind(connection, self._data_key, name, content_digests)

    def run(self, run: RunId) -> RunTerms | None:
        """Return the terms that `run` was begun with, or None."""
        with self._transaction() as connection:
            return _find_terms(connection, run)

    def begin_run(self, terms: RunTerms) -> None:
        """Write a run's terms, before any of its rounds.

        Raises:
            RoundNotRepeatable: the run was begun with other terms.
        """
        with self._transaction() as connection:
            known = _find_terms(connection, terms.run)
            if known is None:
                connection.execute(insert(RUNS).values(terms_to_row(terms)))
            elif known != terms:
                raise RoundNotRepeatable(terms.run, known.differences(terms))

    def charge(self, charge: RoundCharge) -> ChargedRound:
        """Book a round, once; on the disk when this returns.

        The same round on the same parent gives what was booked, at no further cost.

        Raises:
            RunNotBegun: its run was not accepted.
            RoundNotRepeatable: its run was begun with other terms.
            Equivocation: it was charged on another parent; the offer is recorded.
            RoundReleased: it was published and its secret erased.
        """
        with self._transaction() as connection:
            _check_terms(connection, charge)
            row = connection.execute(_booked(charge.terms.run, charge.round)).one_or_none()
            if row is None:
                return self._book(connection, charge)
            if row.parent != charge.parent:
                _record_refusal(connection, charge)
        return _repeat(row, charge)

    def record_update(self, run: RunId, number: int, digest: WeightsId) -> None:
        """Note that the bytes of a round's update are safe; only then may they leave.

        Raises:
            UpdateNotRepeatable: the round has another update already.
        """
        with self._transaction() as connection:
            row = connection.execute(_booked(run, number)).one()
            if row.update_digest not in {None, digest}:
                raise UpdateNotRepeatable(run, number)
            ready = {"update_digest": digest, "state": ChargeState.READY}
            connection.execute(
                update(CHARGES).where(CHARGES.c.sequence == row.sequence).values(ready)
            )

    def release(self, run: RunId, through_round: int) -> tuple[WeightsId, ...]:
        """Erase the secrets of published rounds; return the updates whose bytes may go."""
        published = (CHARGES.c.run == run) & (CHARGES.c.round <= through_round)
        held = published & (CHARGES.c.state != ChargeState.RELEASED)
        with self._transaction() as connection:
            digests = connection.scalars(select(CHARGES.c.update_digest).where(held)).all()
            erased = {"secret": None, "state": ChargeState.RELEASED}
            connection.execute(update(CHARGES).where(held).values(erased))
        self._log_holds_secrets |= bool(digests)
        if self._log_holds_secrets:
            self._empty_log()
        return tuple(WeightsId(digest) for digest in digests if digest is not None)

    def events(self, data_set: str, *, but_for: RunId | None = None) -> tuple[PrivacyEvent, ...]:
        """Return what was charged on a data set, leaving out one run if asked to."""
        return tuple(
            booked.event
            for booked in self.charges()
            if booked.terms.data.name == data_set and booked.terms.run != but_for
        )

    def charges(self) -> tuple[BookedCharge, ...]:
        """Return every charge in the order of booking."""
        both = select(CHARGES, *(column for column in RUNS.c if column.name != "run"))
        ordered = both.join(RUNS, RUNS.c.run == CHARGES.c.run).order_by(CHARGES.c.sequence)
        with self._transaction() as connection:
            return tuple(booked_from_row(row) for row in connection.execute(ordered))

    def _book(self, connection: Connection, charge: RoundCharge) -> ChargedRound:
        secret = self._fresh_secret("round secret", run=charge.terms.run, round=str(charge.round))
        connection.execute(insert(CHARGES).values({**charge_to_row(charge), "secret": secret}))
        return ChargedRound(charge, secret, update=None, fresh=True)

    def _fresh_secret(self, purpose: str, **binding: str) -> bytes:
        return self._seed.secret(purpose=purpose, **binding) if self._seed else system_secret()

    def _empty_log(self) -> None:
        """Erase the write-ahead log; while a reader needs it, the next release or open does."""
        with readable():
            self._log_holds_secrets = bool(pragma(self._engine, "wal_checkpoint(TRUNCATE)"))

    def _stamp(self) -> None:
        """Make the key of the data's digests and stamp the ledger's mode, when it is new."""
        fresh = {"id": 1, "data_key": self._fresh_secret("data key")}
        fresh["insecure_deterministic"] = self.insecure_deterministic
        with self._transaction() as connection:
            connection.execute(insert_or_ignore(STAMP).values(fresh).on_conflict_do_nothing())

    def _stamped_key(self) -> bytes:
        with self._transaction() as connection:
            row = connection.execute(select(STAMP)).one_or_none()
        if row is None:
            raise LedgerUnreadable("it is being made")
        if row.insecure_deterministic != self.insecure_deterministic:
            raise LedgerModeMismatch(insecure_deterministic=row.insecure_deterministic)
        return bytes(row.data_key)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with readable(), self._engine.begin() as connection:
            yield connection


def epsilon_of(ledger: Ledger, data_set: str, delta: float) -> Epsilon | None:
    """Return what has been spent on a data set; None where the noise comes from a seed."""
    return None if ledger.insecure_deterministic else epsilon(ledger.events(data_set), delta)


def _booked(run: RunId, number: int) -> Select[Any]:
    return select(CHARGES).where(CHARGES.c.run == run, CHARGES.c.round == number)


def _check_terms(connection: Connection, charge: RoundCharge) -> None:
    known = _find_terms(connection, charge.terms.run)
    if known is None:
        raise RunNotBegun(charge.terms.run)
    if known != charge.terms:
        raise RoundNotRepeatable(charge.terms.run, known.differences(charge.terms))


def _record_refusal(connection: Connection, charge: RoundCharge) -> None:
    offer = {"run": charge.terms.run, "round": charge.round, "parent": charge.parent}
    connection.execute(insert_or_ignore(REFUSED_PARENTS).values(offer).on_conflict_do_nothing())


def _repeat(row: Row[Any], charge: RoundCharge) -> ChargedRound:
    run, number = charge.terms.run, charge.round
    if row.parent != charge.parent:
        raise Equivocation(run, number, charged=row.parent, offered=charge.parent)
    if event_from_row(row) != charge.event:
        raise RoundNotRepeatable(run, "event")
    if row.secret is None:
        raise RoundReleased(run, number)
    return ChargedRound(charge, row.secret, row.update_digest, fresh=False)


def _find_terms(connection: Connection, run: RunId) -> RunTerms | None:
    row = connection.execute(select(RUNS).where(RUNS.c.run == run)).one_or_none()
    return None if row is None else terms_from_row(row)
