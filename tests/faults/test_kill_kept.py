"""Kills around the store of an update that the plan has kept."""

from __future__ import annotations

import pytest

from tests.faults.federation import SITES, Federation, undisturbed_model

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def kept_undisturbed(tmp_path_factory) -> str:
    """The model of the same plan, on which the noise depends, when nothing is killed."""
    return undisturbed_model(Federation(tmp_path_factory.mktemp("kept"), keep_updates=True))


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_where_an_update_is_kept_a_run_gives_the_same_model(
    tmp_path, kept_undisturbed, when
):
    federation = Federation(tmp_path, keep_updates=True)
    try:
        federation.start_orchestrator(f"orchestrator.uploads:Upload.keep:{when}::5")
        for site in SITES:
            federation.start_gateway(site)
        federation.start_run()
        federation.wait_for_death("orchestrator")
        federation.restart("orchestrator")
        assert federation.completed() == kept_undisturbed
        kept = {path.name for path in (tmp_path / "orchestrator" / "weights").iterdir()}
        for site in SITES:
            assert federation.updates_taken(site) <= kept
    finally:
        federation.close()
