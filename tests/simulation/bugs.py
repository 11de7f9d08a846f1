"""Mistakes that can be put into the running code, each of which the simulation must find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce

import numpy as np
from sqlalchemy import UniqueConstraint

from common import wire
from common.protocol import Receipt
from gateway import bookings
from gateway import gateway as gateways
from gateway.agent import Agent
from gateway.charges import ChargedRound
from gateway.ledger import Ledger
from gateway.updates import UpdateStore
from gateway.workshop import Workshop
from orchestrator import admission, runs, submissions
from orchestrator import rounds as rounds_of
from orchestrator.aggregation import Accumulator
from orchestrator.database import EPOCHS, EVENTS
from orchestrator.events import DeadlinePassed, RoundOpened, UpdateAccepted, UpdateLost
from orchestrator.in_process import InProcessClient
from orchestrator.journal import Journal
from orchestrator.live_runs import LiveRun, LiveRuns
from orchestrator.orchestrator import Orchestrator
from orchestrator.rounds import Phase
from orchestrator.weight_store import WeightStore


@dataclass(frozen=True)
class Bug:
    """One mistake: what it is, and what puts it into this process for good."""

    name: str
    plant: Callable[[], None]


class Forgetful:
    """A disk, or a file, as a program has it that leaves out a call, or makes it later."""

    def __init__(self, disk, call: str, later_s: float | None) -> None:
        self._disk = disk
        self._call = call
        self._later_s = later_s

    def __getattr__(self, name: str):
        sound = getattr(self._disk, name)
        if name == self._call:
            return partial(self._later, sound)
        if name in {"create", "extend"}:
            return lambda path: Forgetful(sound(path), self._call, self._later_s)
        return sound

    def _later(self, sound, *args) -> None:
        if self._later_s is not None:
            asyncio.get_running_loop().call_later(self._later_s, sound, *args)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close()


def leaves_out(
    store: type, place: int, call: str, later_s: float | None = None
) -> Callable[[], None]:
    """Return what has a store make `call` of its disk no more; the disk is its argument `place`."""

    def plant() -> None:
        sound = store.__init__

        def init(self, *args) -> None:
            disk = Forgetful(args[place], call, later_s)
            sound(self, *args[:place], disk, *args[place + 1 :])

        store.__init__ = init

    return plant


def no_unique_key() -> None:
    (unique,) = (c for c in EVENTS.constraints if isinstance(c, UniqueConstraint))
    EVENTS.constraints.discard(unique)


def stale_epoch_accepted() -> None:
    @contextmanager
    def writing(self):
        with self._engine.begin() as connection:
            yield connection

    Journal.writing = writing


def epoch_never_raised() -> None:
    def init(self, engine, clock) -> None:
        self._engine, self._clock = engine, clock
        self.on_end = lambda _: None
        with engine.begin() as connection:
            self._epoch = connection.execute(EPOCHS.select()).one().epoch

    Journal.__init__ = init


def receipt_before_journal() -> None:
    sound = InProcessClient.submit_update

    async def submit_update(self, header, chunks) -> Receipt:
        task = asyncio.create_task(sound(self, header, chunks))
        await asyncio.sleep(0.001)
        if task.done():
            return await task
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Receipt(header.key, header.body.digest)

    InProcessClient.submit_update = submit_update


def restart_not_recorded() -> None:
    def resume(self, grace_s: float) -> None:
        for stored in self._journal.runs():
            run = runs.begin(stored.run_id, wire.plan_from_bytes(stored.plan), stored.plan_digest)
            live = LiveRun(reduce(runs.advance_run, stored.events, run), stored.plan)
            live.recorded = len(stored.events)
            live.deadline = self._clock.now() + max(grace_s, live.run.left_s)
            self._runs[stored.run_id] = live

    LiveRuns.resume = resume


def float_sum() -> None:
    class FloatSum(Accumulator):
        """The sum in float32, in the order of arrival."""

        def add(self, gateway, values, weight: int) -> None:
            super().add(gateway, values, weight)
            floats = np.float32(weight / self._total_weight) * values_of(values)
            self.floats = self.__dict__.get("floats", np.float32(0.0)) + floats

        def mean(self, block=slice(None)):
            factor = self._total_weight / sum(self._weights.values())
            return self.floats[block].astype(np.float64) * factor

    submissions.Accumulator = FloatSum


def values_of(values):
    """Return an update's values as an array, in whatever form they were given."""
    return values.read(slice(0, values.size)) if hasattr(values, "read") else values


class Padded(Accumulator):
    """A sum to which more can be added than its members say."""

    def also(self, values, weight: int) -> None:
        steps = np.rint(values * np.float64(weight / self._total_weight) * 2.0**40).astype(np.int64)
        if self.members and self.held.size == steps.size:
            self.held += steps

    @property
    def held(self):
        return self.memory if hasattr(self, "memory") else self._sum

    @held.setter
    def held(self, steps) -> None:
        pass  # added in place


def duplicate_counted() -> None:
    """A repeated update is added again."""
    submissions.Accumulator = Padded
    sound = InProcessClient.submit_update

    async def submit_update(self, header, chunks) -> Receipt:
        live = self.orchestrator.runs.get(header.key.run_id)
        before = live.run.round is not None and self.gateway in live.run.round.received
        receipt = await sound(self, header, chunks)
        if before and live.sum is not None and receipt.digest in _trained():
            values = np.array(_trained()[receipt.digest], dtype=np.float32)
            live.sum.also(values, live.run.plan.weight(self.gateway))
        return receipt

    InProcessClient.submit_update = submit_update


def fold_before_check() -> None:
    """What begins to arrive is in the sum at once; what breaks off is not taken out again."""
    submissions.Accumulator = Padded
    sound = InProcessClient.submit_update

    async def submit_update(self, header, chunks) -> Receipt:
        live = self.orchestrator.runs.get(header.key.run_id)
        try:
            return await sound(self, header, chunks)
        except BaseException:
            values = _trained().get(header.body.digest)
            if values is not None and live.sum is not None:
                weight = live.run.plan.weight(self.gateway)
                live.sum.also(np.array(values, dtype=np.float32), weight)
            raise

    InProcessClient.submit_update = submit_update


def _trained() -> dict[str, tuple[float, ...]]:
    """Return every update of the simulation by digest: a bug is too lazy to keep the bytes."""
    from tests.simulation.database import CURRENT  # noqa: PLC0415

    return CURRENT[0].trained


def quorum_not_checked() -> None:
    rounds_of._close = lambda state: replace(state, phase=Phase.AGGREGATING)


def awaited_counted() -> None:
    """A round closes over what came before a restart, without waiting for it again."""

    def step(run, *, connected, is_overdue):
        return (
            runs.PassDeadline(())
            if _collects(run) and is_overdue
            else sound(run, connected=connected, is_overdue=is_overdue)
        )

    def _collects(run) -> bool:
        return run.round is not None and run.round.phase is Phase.COLLECTING

    sound, advance = runs.next_step, rounds_of._while_collecting

    def while_collecting(state, event):
        if isinstance(event, DeadlinePassed) and state.awaited:
            return rounds_of._close(replace(state, awaited={}))
        return advance(state, event)

    rounds_of._while_collecting = while_collecting
    _everywhere(sound, step)


def late_update_accepted() -> None:
    """An update that comes while the round closes is counted too."""
    sound = rounds_of._while_aggregating

    def while_aggregating(state, event):
        if isinstance(event, UpdateAccepted):
            return replace(state, received={**state.received, event.gateway: event.digest})
        return sound(state, event)

    rounds_of._while_aggregating = while_aggregating
    counted = admission.is_counted

    def is_counted(run, gateway, key, digest) -> bool:
        state = run.round
        is_closing = state is not None and state.phase is Phase.AGGREGATING
        if is_closing and key.round == state.number and gateway not in state.answered:
            return False
        return counted(run, gateway, key, digest)

    _everywhere(counted, is_counted)


def reopened_on_another_parent() -> None:
    sound = runs._round

    def opened(run, number: int, attempt: int, connected) -> RoundOpened:
        event = sound(run, number, attempt, connected)
        return replace(event, parent=run.plan.initial_weights) if attempt > 1 else event

    runs._round = opened


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

    Ledger.charge, Ledger.record_update = charge_later, record_and_charge


def booked_after_sending() -> None:
    """An update leaves before the ledger knows of it."""
    record, send = Ledger.record_update, Agent._send

    def record_later(self, *args, **options) -> None:
        self.later = lambda: record(self, *args, **options)

    async def send_and_record(self, *args) -> None:
        await send(self, *args)
        self._workshop._ledger.__dict__.pop("later", lambda: None)()

    Ledger.record_update, Agent._send = record_later, send_and_record


def secret_not_kept() -> None:
    """What is booked is not the secret that the noise comes from."""
    sound = bookings.book

    def book(connection, charge, secret: bytes, mark: bytes, *, insecure: bool) -> ChargedRound:
        booked = sound(connection, charge, mark, mark, insecure=insecure)
        return replace(booked, secret=secret)

    bookings.book = book


def released_by_receipt() -> None:
    """A gateway lets its bytes and keys go when they are counted, not when they are published."""
    sound = Agent._send

    async def send(self, key, train, update) -> None:
        await sound(self, key, train, update)
        self._workshop.release(key.run_id, key.round)

    Agent._send = send


def never_released() -> None:
    Workshop.release = lambda self, run, published_round: None


def blind_to_successor() -> None:
    async def look(self) -> None:
        pass

    Orchestrator._look_for_successor = look


def lost_after_abandoned() -> None:
    """The bug that the simulation found first: a second loss does not fit an abandoned round."""
    sound = rounds_of._after_the_end

    def after_the_end(state, event):
        if isinstance(event, UpdateLost):
            raise rounds_of.IllegalTransition(f"a round that is {state.phase.value}", event)
        return sound(state, event)

    rounds_of._after_the_end = after_the_end


def journal_ahead() -> None:
    """A process goes on beside a journal that holds more than it knows, or another writer."""
    LiveRuns.halt = lambda self, error: None


def _everywhere(sound, faulty) -> None:
    """Put `faulty` wherever a module has imported `sound`."""
    import sys  # noqa: PLC0415

    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith(("orchestrator", "gateway", "common")):
            for name, value in list(vars(module).items()):
                if value is sound:
                    setattr(module, name, faulty)


BUGS = (
    Bug("updates acknowledged before fsync", leaves_out(UpdateStore, 1, "sync")),
    Bug("weights named before fsync", leaves_out(WeightStore, 2, "sync")),
    Bug("no folder fsync of updates", leaves_out(UpdateStore, 1, "sync_folder")),
    Bug("no folder fsync of weights", leaves_out(WeightStore, 2, "sync_folder")),
    Bug("weights named before they are written", leaves_out(WeightStore, 2, "rename", 0.05)),
    Bug("weights named a moment before fsync", leaves_out(WeightStore, 2, "sync", 0.05)),
    Bug("no unique key", no_unique_key),
    Bug("a stale epoch accepted", stale_epoch_accepted),
    Bug("an epoch that is never raised", epoch_never_raised),
    Bug("an orchestrator blind to its successor", blind_to_successor),
    Bug("a loss that does not fit an abandoned round", lost_after_abandoned),
    Bug("a process that never stops acting", journal_ahead),
    Bug("a receipt before the journal", receipt_before_journal),
    Bug("a restart that is not recorded", restart_not_recorded),
    Bug("a sum in floats", float_sum),
    Bug("a duplicate counted", duplicate_counted),
    Bug("folded before it is checked", fold_before_check),
    Bug("closed without a quorum", quorum_not_checked),
    Bug("closed over awaited updates", awaited_counted),
    Bug("a late update accepted", late_update_accepted),
    Bug("a round reopened on another parent", reopened_on_another_parent),
    Bug("charged after reading", charge_after_reading),
    Bug("booked after sending", booked_after_sending),
    Bug("a secret that is not kept", secret_not_kept),
    Bug("released by its receipt", released_by_receipt),
    Bug("never released", never_released),
)
