"""A database that fails or goes away in the middle of a run, at any write, and comes back."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from common import wire
from common.clock import SystemClock
from common.disk import SYSTEM_DISK
from common.errors import UnavailableError
from common.ids import GatewayId, RunId
from common.protocol import Body, RunState, ScoreSet
from orchestrator.budgets import DiskReserve, MemoryBudget, Room
from orchestrator.config import Limits
from orchestrator.events import (
    PlanAccepted,
    Restarted,
    RoundOpened,
    RunCancelled,
    ScoresRecorded,
    SitesAwaited,
    UpdateAccepted,
)
from orchestrator.fencing import Fence, JournalFailed, Superseded
from orchestrator.journal import Journal
from orchestrator.live_runs import LiveRuns
from orchestrator.operations import Operations, RunExists
from orchestrator.orchestrator import Orchestrator
from orchestrator.weight_store import WeightStore
from tests.fakes import EFFECTIVE, INITIAL, FakeClock, FakeGateway, chunks, plan_of
from tests.on_record import audit_log, record_of
from tests.postgresql import Server
from tests.signing import FEDERATION, order

PLAN = plan_of("a", "b")
PLAN_BYTES = wire.plan_to_bytes(PLAN)
PLAN_ID = wire.plan_id(PLAN_BYTES)
OPENED = RoundOpened(1, 1, INITIAL.digest, ("a", "b"), 2, 60.0)
WRITES = 25  # transactions in which the run below writes something


class Failing:
    """Makes chosen transactions of an engine fail, before they are committed or after."""

    def __init__(self, engine) -> None:
        self.writes = 0
        self.left = 0  # transactions that are still to fail
        self.first = 0  # the write from which on they do, counted from 1
        self.is_kept = False  # whether they are committed all the same
        self._has_written = False
        event.listen(engine, "before_cursor_execute", self._look)
        event.listen(engine, "begin", self._begin)
        event.listen(engine, "commit", self._commit)

    def fail(self, *, first: int = 1, times: int = 1, is_kept: bool = False) -> None:
        self.writes, self.first, self.left, self.is_kept = 0, first, times, is_kept

    def _begin(self, connection) -> None:
        self._has_written = False

    def _look(self, connection, cursor, statement, *_) -> None:
        self._has_written |= statement.startswith(("INSERT", "UPDATE"))

    def _commit(self, connection) -> None:
        self.writes += self._has_written
        if self._has_written and self.left and self.writes >= self.first:
            self.left -= 1
            if self.is_kept:
                connection.connection.dbapi_connection.commit()
            raise OperationalError("COMMIT", {}, ConnectionError("the database is gone"))


@pytest.fixture
def failing(engine) -> Failing:
    return Failing(engine)


@pytest.fixture
def fence(engine, failing):
    return Fence(engine)


@pytest.fixture
def journal(fence):
    return Journal(fence, FakeClock())


@pytest.fixture
def runs(journal):
    runs = LiveRuns(journal, record_of(journal), FakeClock())
    runs.resume(7.0)
    return runs


@pytest.fixture
def collecting(runs):
    """Round 1 is open, nothing has come."""
    live = runs.create(RunId("r"), PLAN, PLAN_BYTES, PLAN_ID)
    for gateway in "ab":
        runs.record(live, PlanAccepted(GatewayId(gateway), EFFECTIVE, 60.0))
    runs.record(live, OPENED)
    return live


def came(gateway: str) -> UpdateAccepted:
    return UpdateAccepted(GatewayId(gateway), INITIAL.digest, 30.0)


def stored(journal) -> tuple:
    return journal.run(RunId("r")).events


def test_a_record_that_failed_can_be_made_again_once_the_run_is_settled(
    runs, journal, failing, collecting
):
    before = stored(journal)
    failing.fail()
    with pytest.raises(JournalFailed):
        runs.record(collecting, came("a"))
    with pytest.raises(JournalFailed):
        runs.record(collecting, came("b"))  # the database is back, the run is not settled yet
    runs.settle(collecting)
    assert stored(journal) == before
    runs.record(collecting, came("a"))
    assert stored(journal) == (*before, came("a"))
    assert collecting.run.round.received.keys() == {"a"}


def test_a_record_that_was_kept_though_it_failed_is_found_and_comes_again(
    runs, journal, failing, collecting
):
    failing.fail(is_kept=True)
    with pytest.raises(JournalFailed):
        runs.record(collecting, came("a"))
    assert not collecting.run.round.received
    runs.settle(collecting)
    assert stored(journal)[-2:] == (came("a"), Restarted(60.0))
    assert collecting.run.round.awaited == {"a": INITIAL.digest}  # no sum holds it
    runs.record(collecting, came("a"))
    assert collecting.run.round.received == {"a": INITIAL.digest}


def test_what_a_kept_record_waits_for_is_waited_for(runs, journal, failing):
    live = runs.create(RunId("r"), PLAN, PLAN_BYTES, PLAN_ID)
    failing.fail(is_kept=True)
    with pytest.raises(JournalFailed):
        runs.record(live, SitesAwaited(86_400.0))
    runs.settle(live)
    assert stored(journal)[-2:] == (SitesAwaited(86_400.0), Restarted(86_400.0))
    assert runs.remaining_s(live) == 86_400.0


def test_gateways_that_wait_learn_of_a_run_whose_storing_seemed_to_fail(runs, failing):
    told = runs.bell(GatewayId("a")).next
    failing.fail(is_kept=True)
    with pytest.raises(JournalFailed):
        runs.create(RunId("r"), PLAN, PLAN_BYTES, PLAN_ID)
    assert not told.is_set()
    runs.create(RunId("r"), PLAN, PLAN_BYTES, PLAN_ID)
    assert told.is_set()


def test_a_run_that_cannot_be_settled_yet_stays_in_doubt(runs, journal, failing, collecting):
    failing.fail(times=2, is_kept=True)
    for attempt in (lambda: runs.record(collecting, came("a")), lambda: runs.settle(collecting)):
        with pytest.raises(JournalFailed):
            attempt()
        assert not collecting.run.round.received
    runs.settle(collecting)
    assert collecting.run.round.awaited == {"a": INITIAL.digest}
    assert stored(journal)[-3:] == (came("a"), Restarted(60.0), Restarted(60.0))


def test_a_sum_that_was_lost_comes_again(runs, collecting):
    runs.record(collecting, came("a"))
    runs.doubt(collecting, lost_sum=True)
    runs.settle(collecting)
    assert collecting.run.round.awaited == {"a": INITIAL.digest}
    runs.settle(collecting)  # nothing more to do
    assert collecting.run.round.awaited == {"a": INITIAL.digest}


def test_a_round_has_the_grace_of_a_restart_once_the_database_is_back(runs, failing, collecting):
    failing.fail()
    runs._clock.advance(58.0)
    with pytest.raises(JournalFailed):
        runs.record(collecting, came("a"))
    runs._clock.advance(10.0)
    runs.settle(collecting)
    assert runs.remaining_s(collecting) == 7.0


def test_a_run_that_has_ended_settles_itself(runs, journal, failing, collecting):
    runs.record(collecting, RunCancelled())
    scores = ScoresRecorded(ScoreSet(0, "dev", INITIAL.digest, 0.5, 0.5, 0.5, 9))
    failing.fail(is_kept=True)
    with pytest.raises(JournalFailed):
        runs.record(collecting, scores)
    runs.record(collecting, scores)
    assert stored(journal)[-2:] == (RunCancelled(), scores)


def test_a_process_that_was_superseded_meanwhile_halts(runs, engine, failing, collecting):
    failing.fail(is_kept=True)
    with pytest.raises(JournalFailed):
        runs.record(collecting, came("a"))
    Fence(engine)
    with pytest.raises(Superseded):
        runs.settle(collecting)
    assert runs.halted.is_set()


async def test_a_run_that_was_stored_though_it_failed_is_taken_up(tmp_path, runs, fence, failing):
    driven = []
    store = WeightStore(tmp_path / "weights", fence)
    room = Room(MemoryBudget(1 << 30), DiskReserve(SYSTEM_DISK, tmp_path, 0), Limits())
    operations = Operations(FEDERATION, runs, store, audit_log(fence), room, driven.append)
    store.put(INITIAL.to_bytes())
    failing.fail(is_kept=True)
    with pytest.raises(JournalFailed):
        await operations.start_run(*order("r", PLAN_BYTES))
    with pytest.raises(RunExists):
        await operations.start_run(*order("r", plan_of("c")))
    assert await operations.start_run(*order("r", PLAN_BYTES)) == PLAN_ID
    assert driven == ["r"]


class Impatient(FakeClock):
    """A clock that does not let the short waits between tries last."""

    async def sleep_until(self, deadline: float) -> None:
        if deadline - self.now() <= 5.0:
            await asyncio.sleep(0)
            self.advance(max(0.0, deadline - self.now()))
        else:
            await super().sleep_until(deadline)


class Patient(FakeGateway):
    """Does again what the orchestrator could not do."""

    async def take(self, news) -> bool:
        return await again(lambda: super(Patient, self).take(news))


async def again(call):
    """Return what `call` returns once it is not unavailable."""
    while True:
        try:
            return await call()
        except UnavailableError:
            await asyncio.sleep(0)


async def run_through(folder, first: int, **how) -> tuple[RunState, str, int]:
    """Let a run meet a database that fails; return its end, its model, and how much it wrote."""
    url, data = f"sqlite:///{folder / 'journal.db'}", INITIAL.to_bytes()
    orchestrator = Orchestrator(
        folder, url, federation="acme", clock=Impatient(), limits=Limits()
    ).start(restart_grace_s=5.0)
    failing = Failing(orchestrator._engine)
    failing.fail(first=first, **how)
    operations = orchestrator.operations
    await again(lambda: operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data)))
    await again(lambda: operations.start_run(*order("r", PLAN_BYTES)))
    gateways = [Patient(name, orchestrator.seen_by(GatewayId(name))) for name in "ab"]
    await asyncio.gather(*(gateway.follow("r") for gateway in gateways))
    (status,) = await again(operations.list_runs)
    assert not orchestrator.runs.halted.is_set()
    await orchestrator.close()
    return status.state, status.model, failing.writes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return asyncio.run(run_through(tmp_path_factory.mktemp("undisturbed"), first=1, times=0))


def test_a_run_writes_what_is_counted_here(undisturbed):
    assert undisturbed[2] == WRITES


@pytest.mark.parametrize("how", [{}, {"times": 4}, {"is_kept": True}], ids=["once", "long", "kept"])
@pytest.mark.parametrize("first", range(1, WRITES + 1))
async def test_a_database_that_fails_at_any_write_changes_no_model(
    tmp_path, undisturbed, first, how
):
    state, model, _ = await run_through(tmp_path, first, **how)
    assert (state, model) == (RunState.COMPLETED, undisturbed[1])


async def test_calls_are_answered_as_unavailable_while_the_database_is_away(federation):
    server = Server(fsync=True)
    try:
        server.start()
        url = server.tcp_url(server.make_database())
        federation.config = federation.config.model_copy(update={"database": url})
        federation.clock = SystemClock()
        async with federation.serving() as serving:
            operator = await federation.start(PLAN)
            (gateway,) = await federation.gateways("a")
            await asyncio.to_thread(server.stop)
            for call in (
                lambda: operator.start_run(*order("s", PLAN_BYTES)),
                lambda: operator.cancel_run(RunId("r")),
                lambda: gateway.accept("r"),
                lambda: gateway.client.get_ledger_head(insecure_deterministic=False),
            ):
                with pytest.raises(UnavailableError, match=r"journal failed.*try again later"):
                    await call()
            await asyncio.to_thread(server.start)
            await again(lambda: gateway.accept("r"))  # its run is settled first
            await operator.start_run(*order("s", PLAN_BYTES))
            assert not serving.orchestrator.runs.halted.is_set()
    finally:
        server.remove()
