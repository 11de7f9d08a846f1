"""An orchestrator that is lost in the middle of a run, and another that starts from a backup."""

from __future__ import annotations

import shutil
import signal

import pytest

from cli import backup_commands
from common.protocol import RunState
from tests.faults.federation import RUN, SITES, Federation

pytestmark = pytest.mark.timeout(300)

IN_ROUND_2 = "gateway.ledger:Ledger.charge:before::2"


@pytest.fixture
def in_round_2(request, tmp_path):
    """A run whose first round is published, and whose second waits for a gateway that was killed.

    The other two have sent what they trained.
    """
    federation = Federation(tmp_path, **getattr(request, "param", {}))
    federation.start_orchestrator()
    federation.start_gateway(SITES[0], IN_ROUND_2)
    for site in SITES[1:]:
        federation.start_gateway(site)
    federation.start_run()
    federation.wait_for_death(SITES[0])
    federation.until(lambda: federation.happened("UpdateAccepted") == 5, "two have sent round 2")
    yield federation
    federation.close()


def save(federation: Federation) -> None:
    config = federation.folder / "orchestrator.toml"
    backup_commands.backup(federation.folder / "saved", config)


def lose(federation: Federation) -> None:
    """Take the orchestrator's machine away, with all that it kept, and restore the backup."""
    federation.signal("orchestrator", signal.SIGKILL)
    federation.wait_for_death("orchestrator")
    shutil.rmtree(federation.folder / "orchestrator")
    config = federation.folder / "orchestrator.toml"
    backup_commands.restore(federation.folder / "saved", config)
    federation.restart("orchestrator")


def test_a_run_goes_on_from_a_backup_to_the_same_model(in_round_2, undisturbed):
    save(in_round_2)
    lose(in_round_2)
    in_round_2.restart(SITES[0])
    assert in_round_2.completed() == undisturbed


@pytest.mark.parametrize("in_round_2", [{"maximum": 4}], indirect=True)
def test_a_backup_from_before_a_round_was_published_charges_nobody_twice(in_round_2):
    save(in_round_2)
    in_round_2.restart(SITES[0])
    in_round_2.until(lambda: in_round_2.published() == 3, "every round is published")
    assert in_round_2.finish().state is RunState.COMPLETED
    lose(in_round_2)
    status = in_round_2.finish()
    assert status.state is RunState.FAILED
    assert "1 declined, 0 lost (the last one declined: not_repeatable)" in status.reason
    for site in SITES:
        ledger = in_round_2.ledger(site)
        assert [(c.terms.run, c.round) for c in ledger.charges()] == [(RUN, n) for n in (1, 2, 3)]
        ledger.close()
    said = f"round 2 of run '{RUN}' was published and its keys are erased"
    assert any(said in in_round_2.log(site) for site in SITES)
