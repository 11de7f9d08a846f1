"""A leader that dies or freezes, a database that stops: the same model, nothing written late."""

from __future__ import annotations

import signal

import pytest

from tests.faults.federation import SITES, Federation
from tests.postgresql import Server

pytestmark = pytest.mark.timeout(300)

CLOSING = "orchestrator.journal:Journal.append:before:RoundPublished:2"
LIMIT_S = 30.0


@pytest.fixture
def federation(tmp_path, postgresql):
    """An orchestrator that meets its end while it closes round 2, a standby, three gateways."""
    started = Federation(tmp_path, postgresql)
    yield started
    started.close()


def begin(federation: Federation, point: str) -> None:
    federation.start_orchestrator(point)
    federation.start_standby()
    for site in SITES:
        federation.start_gateway(site)
    federation.start_run()


def test_a_standby_goes_on_with_the_runs_of_a_leader_that_died(federation, undisturbed):
    begin(federation, CLOSING)
    federation.wait_for_death("orchestrator")
    assert federation.until_serving("standby") < LIMIT_S
    assert federation.completed() == undisturbed


def test_a_leader_that_was_frozen_can_write_nothing_once_it_was_succeeded(federation, undisturbed):
    begin(federation, f"{CLOSING}:SIGSTOP")
    federation.until_frozen("orchestrator")
    assert federation.until_serving("standby") < LIMIT_S
    federation.signal("orchestrator", signal.SIGCONT)
    federation.until(federation.has_ended, "the old leader ends")
    assert "another orchestrator took over (writer 2, this one is 1)" in federation.log(
        "orchestrator"
    )
    assert federation.completed() == undisturbed
    writers = federation.writers()
    assert writers == sorted(writers)  # in the order of writing: none of the old leader's came late
    assert set(writers) == {1, 2}


def test_a_run_goes_on_by_itself_when_the_database_comes_back(tmp_path, undisturbed):
    server = Server(fsync=True)
    server.start()
    federation = Federation(tmp_path, server)
    try:
        federation.start_orchestrator()
        for site in SITES:
            federation.start_gateway(site)
        federation.start_run()
        federation.until(lambda: federation.published() == 1, "a round is published")
        server.stop()
        federation.until(lambda: "journal_failed" in federation.log("orchestrator"), "it is missed")
        server.start()
        assert federation.completed() == undisturbed
        assert federation.processes["orchestrator"].poll() is None  # it was never restarted
    finally:
        federation.close()
        server.remove()
