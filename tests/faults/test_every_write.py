"""kill -9 at every write of both processes; and that there is no write without a failpoint."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.every_write import Report, kill_at_every_write
from tests.faults.failpoints import ROOT, Claims
from tests.faults.writers import ELSEWHERE, writers


@pytest.mark.timeout(900)
def test_a_kill_at_every_write_changes_no_round_and_no_charge(tmp_path):
    report = Report("sqlite")
    kill_at_every_write(report, tmp_path)
    assert report.is_clean(), report


def test_what_is_shown_elsewhere_is_still_written():
    assert ELSEWHERE.keys() - writers() == set()


PROGRAM = """
import sys
from pathlib import Path
from tests.faults.failpoints import Claims, Failpoints
root = Path(sys.argv[1])
Failpoints("orchestrator", root, Claims(root / "claims")).install()
(root / "state" / "a.txt").write_text("a")
"""


def test_a_write_that_nobody_has_thought_of_has_a_point_before_it_and_one_after(tmp_path):
    (tmp_path / "state").mkdir()
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    ends = [subprocess.run(command, cwd=ROOT, check=False).returncode for _ in range(3)]
    assert ends == [-9, -9, 0]
    points = Claims(tmp_path / "claims").points()
    assert [point.name for point in points] == [": open a.txt: before", ": open a.txt: after"]
