"""A few random kills in each CI run; `python -m tests.faults.random_kills` does many."""

from __future__ import annotations

import pytest

from tests.faults.random_kills import Report, kill_at_random


@pytest.mark.timeout(600)
def test_random_kills_leave_model_and_charges_as_they_were(tmp_path, undisturbed):
    report = Report("postgresql", seed=20)
    kill_at_random(report, 3, tmp_path, undisturbed)
    assert report.is_clean(), report
    assert report.kills == 3
