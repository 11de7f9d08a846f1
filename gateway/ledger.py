"""The ledger: what has been charged on each data set, written before it is spent.

A charge is one transaction, on the disk before the first batch is read. It is written once for a
round, whatever happens afterwards: a crash, a retry, a reopened round cost nothing more. The
ledger holds facts; epsilon is computed from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Self

from sqlalchemy import Connection, Engine, insert, make_url, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

from common.accounting import Epsilon, PrivacyEvent, epsilon
from common.ids import GatewayId, RunId, WeightsId
from common.plan import Unit
from common.protocol import Countersignature, LedgerHead
from common.randomness import InsecureSeed, system_secret
from gateway import bookings, countersignatures, data_sets, ledger_chain
from gateway.charges import (
    BookedCharge,
    ChargedRound,
    ChargeState,
    DataSetBinding,
    LedgerModeMismatch,
    LedgerUnreadable,
    RoundCharge,
    RoundNotRepeatable,
    RunNotBegun,
    RunTerms,
    UpdateNotRepeatable,
)
from gateway.countersignatures import CountersignatureForged
from gateway.lease import Lease
from gateway.ledger_marker import mark_made, refuse_lost, refuse_missing
from gateway.ledger_rows import booked_from_row, terms_to_row
from gateway.ledger_tables import (
    CHARGES,
    RUNS,
    STAMP,
    connect,
    connect_to_read,
    file_of,
    pragma,
    readable,
)
from gateway.records import Record
from gateway.spending import Spent, spent_in


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
        self.data_key = self._stamped_key()
        with self.transaction() as connection:
            ledger_chain.verify(connection)

    @classmethod
    def open(cls, url: str, *, seed: InsecureSeed | None = None, exclusive: bool = True) -> Self:
        """Open the ledger at a SQLite URL for this process alone; make it if there is none.

        Args:
            url: `sqlite:////absolute/path`, or `sqlite://` for one that ends with the process.
            seed: under --insecure-deterministic, where the secrets come from instead.
            exclusive: False to read it only, beside the process that holds it; makes nothing.

        Raises:
            LedgerInUse: another process holds it.
            LedgerUnreadable: it is damaged or lost, or there is no folder, or none to read; a
                RecordBroken names the first record that is not as it was written.
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
        with self.transaction() as connection:
            return data_sets.bind(connection, self.data_key, name, content_digests)

    def run(self, run: RunId) -> RunTerms | None:
        """Return the terms that `run` was begun with, or None."""
        with self.transaction() as connection:
            return bookings.find_terms(connection, run)

    def begin_run(self, terms: RunTerms) -> None:
        """Write a run's terms, before any of its rounds.

        Raises:
            RoundNotRepeatable: the run was begun with other terms.
        """
        with self.transaction() as connection:
            known = bookings.find_terms(connection, terms.run)
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
            RoundMerged: its charge came from another image of this ledger.
            UnitChanged: its data were charged under another unit.
            LedgerRolledBack: the ledger lacks what the orchestrator has countersigned.
        """
        with self.transaction() as connection:
            countersignatures.check_standing(connection)
            bookings.check_terms(connection, charge)
            row = bookings.find(connection, charge.terms.run, charge.round)
            if row is None:
                binding = {"run": charge.terms.run, "round": str(charge.round)}
                secret = self._fresh_secret("round secret", **binding)
                mark = self._fresh_secret("charge mark", **binding)
                insecure = self.insecure_deterministic
                return bookings.book(connection, charge, secret, mark, insecure=insecure)
            if row.parent != charge.parent:
                bookings.note_refusal(connection, charge)
        return bookings.repeat(row, charge)

    def is_charged(self, run: RunId, number: int) -> bool:
        """Whether a round was booked here, whatever has become of it."""
        with self.transaction() as connection:
            return bookings.find(connection, run, number) is not None

    def record_update(
        self, run: RunId, number: int, digest: WeightsId, *, next_norm: float | None = None
    ) -> None:
        """Note that the bytes of a round's update are safe; only then may they leave.

        Args:
            run: the round's.
            number: the round's.
            digest: names the update.
            next_norm: the clipping norm that the round has come to, which the run's next one begins
                with; None where clipping is fixed. What was noted with the update first, stays.

        Raises:
            UpdateNotRepeatable: the round has another update already.
        """
        with self.transaction() as connection:
            row = bookings.find(connection, run, number)
            if row is None:
                raise RunNotBegun(run)
            if row.update_digest not in {None, digest}:
                raise UpdateNotRepeatable(run, number)
            ready: dict[str, object] = {"update_digest": digest, "state": ChargeState.READY}
            if row.update_digest is None:
                ready["next_clipping_norm"] = next_norm
            connection.execute(
                update(CHARGES).where(CHARGES.c.sequence == row.sequence).values(ready)
            )

    def release(self, run: RunId, through_round: int) -> tuple[WeightsId, ...]:
        """Erase the secrets of published rounds; return the updates whose bytes may go."""
        published = (CHARGES.c.run == run) & (CHARGES.c.round <= through_round)
        held = published & (CHARGES.c.state != ChargeState.RELEASED)
        with self.transaction() as connection:
            digests = connection.scalars(select(CHARGES.c.update_digest).where(held)).all()
            erased = {"secret": None, "state": ChargeState.RELEASED}
            connection.execute(update(CHARGES).where(held).values(erased))
        self._log_holds_secrets |= bool(digests)
        if self._log_holds_secrets:
            self._empty_log()
        return tuple(WeightsId(digest) for digest in digests if digest is not None)

    def events(self, data_set: str, *, but_for: RunId | None = None) -> tuple[PrivacyEvent, ...]:
        """Return what was spent on a data set, leaving out what one run booked if asked to.

        What came with a merge is never left out: no plan's own rounds stand for it.
        """
        return tuple(
            each.event
            for each in self.spent()
            if each.data_set == data_set and not (each.is_own and each.run == but_for)
        )

    def units_charged(self, data_set: str) -> set[Unit]:
        """Return the units under which a data set was charged: one, or none before the first."""
        with self.transaction() as connection:
            return bookings.units_charged(connection, data_set)

    def spent(self) -> tuple[Spent, ...]:
        """Return all that was spent, here and in the images that were merged."""
        return spent_in(self.records())

    def records(self) -> tuple[Record, ...]:
        """Return the chain, from the first record on."""
        with self.transaction() as connection:
            return ledger_chain.records_of(connection)

    @property
    def head(self) -> LedgerHead:
        """What stands for the whole ledger, as uploads name it."""
        with self.transaction() as connection:
            head = ledger_chain.head_of(connection)
        return LedgerHead(head.sequence, head.hash, self.insecure_deterministic)

    def countersigned(self) -> Countersignature | None:
        """Return the newest countersignature that is known, if its key is still trusted."""
        mode = self.insecure_deterministic
        with self.transaction() as connection:
            return countersignatures.newest(connection, insecure_deterministic=mode)

    def confirm(self, gateway: GatewayId, given: Countersignature) -> None:
        """Keep what the orchestrator has countersigned; see `gateway.countersignatures.keep`."""
        if given.head.insecure_deterministic != self.insecure_deterministic:
            raise CountersignatureForged(given.head)
        with self.transaction() as connection:
            countersignatures.keep(connection, gateway, given)

    def check_standing(self) -> None:
        """Raise LedgerRolledBack unless it holds all that was ever countersigned."""
        with self.transaction() as connection:
            countersignatures.check_standing(connection)

    def check_holds(self, given: Countersignature) -> None:
        """Raise LedgerRolledBack unless it holds what the orchestrator has countersigned."""
        with self.transaction() as connection:
            countersignatures.check_holds(connection, countersignatures.place_of(given))

    def charges(self) -> tuple[BookedCharge, ...]:
        """Return every charge in the order of booking."""
        ordered = ledger_chain.CHARGED.order_by(CHARGES.c.sequence)
        with self.transaction() as connection:
            return tuple(booked_from_row(row) for row in connection.execute(ordered))

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
        with self.transaction() as connection:
            connection.execute(insert_or_ignore(STAMP).values(fresh).on_conflict_do_nothing())

    def _stamped_key(self) -> bytes:
        with self.transaction() as connection:
            row = connection.execute(select(STAMP)).one_or_none()
        if row is None:
            raise LedgerUnreadable("it is being made")
        if row.insecure_deterministic != self.insecure_deterministic:
            raise LedgerModeMismatch(insecure_deterministic=row.insecure_deterministic)
        return bytes(row.data_key)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Lend a transaction: all that is done in it is on the disk at its end, or nothing."""
        with readable(), self._engine.begin() as connection:
            yield connection


def epsilon_of(ledger: Ledger, data_set: str, delta: float) -> Epsilon | None:
    """Return what has been spent on a data set; None where the noise comes from a seed."""
    return None if ledger.insecure_deterministic else epsilon(ledger.events(data_set), delta)
