"""kill -9 at every write of both processes; and that there is no write without a failpoint."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.every_write import Report, kill_at_every_write
from tests.faults.failpoints import ROOT, Claims
from tests.faults.writers import writers

ELSEWHERE = {  # functions that write and are not at work in a federation that nothing else disturbs
    "common.wire_operator.status_to_proto": "a message, no file",
    "gateway.outgoing.OutgoingStream._write": "to the network",
    "gateway.bookings.note_refusal": "a second parent for a charged round: test_ledger_on_disk.py",
    "gateway.countersignatures.trust": "a command: test_ledger_commands.py",
    "gateway.ledger_desk.Desk.image": "a copy that is thrown away",
    "gateway.merging._add": "a command: test_kill_merge.py",
    "orchestrator.operations.Operations.start_run": "calls `create` of the runs, no file",
}


@pytest.mark.timeout(900)
def test_a_kill_at_every_write_changes_no_round_and_no_charge(tmp_path):
    report = Report("sqlite")
    points = kill_at_every_write(report, tmp_path)
    assert report.is_clean(), report
    at_work = {function for point in points for function in point.functions}
    assert writers() - at_work - ELSEWHERE.keys() == set()
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
