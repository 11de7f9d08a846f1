"""One seed, from its state folders to what it came to."""

from __future__ import annotations

import gc
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from random import Random
from unittest.mock import patch

import structlog

import gateway.ledger
import gateway.ledger_tables
import orchestrator.engines
from gateway.lease import Lease
from tests.simulation import database
from tests.simulation.engine import create_engine_quickly, sound_engine
from tests.simulation.federation import Federation
from tests.simulation.history import History, trace_of
from tests.simulation.loop import PROCESS
from tests.simulation.machines import templates
from tests.simulation.summary import Outcome
from tests.simulation.training import without_learning

SHM = Path("/dev/shm")  # noqa: S108  # each commit is synced, and a disk takes its time for it


def simulate(seed: int, *, tail: int = 60) -> Outcome:
    """Run one seed from its beginning to its end."""
    _make_ready()
    gc.disable()  # what is collected when, would not be the seed's
    folder = Path(tempfile.mkdtemp(prefix="simulation-", dir=SHM if SHM.exists() else None))
    try:
        federation = Federation(seed, folder)
        with seeded(federation), quiet(federation.history):
            federation.run()
        federation.checks.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        gc.enable()
    return _outcome(federation, tail)


@cache
def _make_ready() -> None:
    """Make what every seed needs, once; no collection need look at it again."""
    templates()
    sound_engine(False), sound_engine(True)
    gc.collect()
    gc.freeze()


def _outcome(federation: Federation, tail: int) -> Outcome:
    history, register = federation.history, federation.checks.register
    return Outcome(
        seed=federation.seed,
        violations=tuple(history.violations),
        counts={kind.name: count for kind, count in federation.faults.counts.items()},
        end=register.end,
        published=register.published,
        seconds=federation.loop.time(),
        steps=federation.loop.steps,
        trace=trace_of(history),
        tail=tuple(history.tail(tail)) if history.violations else (),
    )


class SimulatedLease(Lease):
    """A lease that the operating system takes back from the dead."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._is_held = True
        process = PROCESS.get()
        if process is not None:
            process.at_end.append(self.release)

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            super().release()


def at_once(executor: Executor, work: Callable[..., object], *args: object) -> Future[object]:
    """Do what a thread would be given, here and now: no two threads of a process run at once."""
    future: Future[object] = Future()
    try:
        future.set_result(work(*args))
    except BaseException as error:  # noqa: BLE001  # a thread hands on whatever it meets
        future.set_exception(error)
    return future


@contextmanager
def seeded(federation: Federation) -> Iterator[None]:
    """Have all randomness and all training inside come from the seed."""
    draw = Random(f"secrets {federation.seed}")
    replaced = (
        (secrets, "token_hex", lambda count=32: draw.randbytes(count).hex()),
        (gateway.ledger, "system_secret", lambda: draw.randbytes(32)),
        (gateway.ledger, "Lease", SimulatedLease),
        (ThreadPoolExecutor, "submit", at_once),
        (gateway.ledger_tables, "create_engine", create_engine_quickly),
        (orchestrator.engines, "create_engine", create_engine_quickly),
    )
    database.CURRENT[:] = [federation.databases]
    with ExitStack() as stack:
        stack.callback(database.CURRENT.clear)
        for place, name, ours in replaced:
            stack.enter_context(patch.object(place, name, ours))
        stack.enter_context(without_learning(federation.trained))
        yield


@contextmanager
def quiet(history: History) -> Iterator[None]:
    """Put every line of a log into the history."""

    def note(logger, method, line):
        error = line.pop("exc_info", None)
        if error:
            line["error"] = repr(error)[:300]
        history.note(f"  {PROCESS.get()} logs {line.pop('event')} {line or ''}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[note], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**before)
