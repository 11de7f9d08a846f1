"""What each test of a kill is compared with."""

from __future__ import annotations

import pytest

from tests.faults.federation import Federation, undisturbed_model


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> str:
    """The SHA-256 of the model that the run gives when nothing is killed."""
    return undisturbed_model(Federation(tmp_path_factory.mktemp("undisturbed")))
