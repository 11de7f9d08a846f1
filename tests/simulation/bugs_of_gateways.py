"""Mistakes of gateways: what is paid when, and what is kept how long."""

from __future__ import annotations

from dataclasses import replace

from gateway import bookings
from gateway import gateway as gateways
from gateway.agent import Agent
from gateway.charges import ChargedRound
from gateway.ledger import Ledger
from gateway.workshop import Workshop
from tests.simulation.planting import put


def charge_after_reading() -> None:
    """A round is booked when its update is ready, and not before the data are read."""
    charge, record = Ledger.charge, Ledger.record_update

    def charge_later(self, wanted) -> ChargedRound:
        with self.transaction() as connection:
            row = bookings.find(connection, wanted.terms.run, wanted.round)
        if row is not None:
            return charge(self, wanted)
        self.wanted = wanted
        secret = gateways.Gateway.__name__.encode().ljust(32)
        return ChargedRound(wanted, secret, wanted.terms.effective.clipping_norm, None, fresh=True)

    def record_and_charge(self, run, number, digest, *, next_norm=None) -> None:
        wanted = self.__dict__.pop("wanted", None)
        if wanted is not None:
            charge(self, wanted)
        record(self, run, number, digest, next_norm=next_norm)

    put(Ledger, "charge", charge_later)
    put(Ledger, "record_update", record_and_charge)


def booked_after_sending() -> None:
    """An update leaves before the ledger knows of it."""
    record, send = Ledger.record_update, Agent._send

    def record_later(self, *args, **options) -> None:
        self.later = lambda: record(self, *args, **options)

    async def send_and_record(self, *args) -> None:
        await send(self, *args)
        self._workshop._ledger.__dict__.pop("later", lambda: None)()

    put(Ledger, "record_update", record_later)
    put(Agent, "_send", send_and_record)


def secret_not_kept() -> None:
    """What is booked is not the secret that the noise comes from."""
    sound = bookings.book

    def book(connection, charge, secret: bytes, mark: bytes, *, insecure: bool) -> ChargedRound:
        booked = sound(connection, charge, mark, mark, insecure=insecure)
        return replace(booked, secret=secret)

    put(bookings, "book", book)


def released_by_receipt() -> None:
    """A gateway lets its bytes and keys go when they are counted, not when they are published."""
    sound = Agent._send

    async def send(self, key, train, update) -> None:
        await sound(self, key, train, update)
        self._workshop.release(key.run_id, key.round)

    put(Agent, "_send", send)


def never_released() -> None:
    put(Workshop, "release", lambda self, run, published_round: None)
