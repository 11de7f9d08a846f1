"""A few random kills in each CI run; `python -m tests.faults.random_kills` does many."""

from __future__ import annotations

import pytest

from tests.faults.random_kills import kill_at_random


@pytest.mark.timeout(600)
def test_random_kills_leave_model_and_charges_as_they_were(tmp_path):
    report = kill_at_random("postgresql", 4, seed=20, folder=tmp_path)
    assert report.is_clean(), report
    assert report.kills == 4
