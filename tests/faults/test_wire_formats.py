"""Runs of real processes in each wire format: to their end, and through kills with the same bits.

Rounding at random is drawn from the round's secret, so that even an update whose bytes were never
kept comes out as it was.
"""

from __future__ import annotations

import pytest

from tasks.plan_file import read_plan
from tests.faults.federation import SITES, Federation

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def laid_out(tmp_path):
    """Makes federations, and ends them."""
    made = []

    def make(name: str, wire_format: str) -> Federation:
        (tmp_path / name).mkdir()
        made.append(Federation(tmp_path / name, wire_format=wire_format))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.parametrize("wire_format", ["bfloat16", "int8"])
def test_killed_on_both_sides_a_run_gives_the_same_model(laid_out, wire_format):
    undisturbed = laid_out("as-is", wire_format)
    undisturbed.start_orchestrator()
    for site in SITES:
        undisturbed.start_gateway(site)
    undisturbed.start_run()
    plan, _ = read_plan(undisturbed.folder / "plan.toml")
    assert plan.wire_format == wire_format
    sent = undisturbed.finish().bytes_received
    assert sent == len(SITES) * plan.rounds.count * plan.update_form.byte_length
    expected = undisturbed.completed()
    undisturbed.close()

    killed = laid_out("killed", wire_format)
    killed.start_orchestrator("orchestrator.journal:Journal.append:after:UpdateAccepted:5")
    killed.start_gateway(SITES[0], "gateway.updates:UpdateStore.keep:before::2")
    for site in SITES[1:]:
        killed.start_gateway(site)
    killed.start_run()
    for name in ("orchestrator", SITES[0]):  # the other two's updates are enough to end the first
        killed.wait_for_death(name)
        killed.restart(name)
    assert killed.completed() == expected
