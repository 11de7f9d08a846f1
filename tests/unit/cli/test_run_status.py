"""What a run's state says of privacy, as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from cli.run_commands import _print_status
from common.console import Format
from common.ids import PlanId, RunId
from common.plan import Privacy, Unit
from common.protocol import RunState, RunStatus

STATUS = RunStatus(
    RunId("r"),
    "n",
    RunState.RUNNING,
    PlanId("c" * 64),
    privacy=Privacy(unit=Unit.DOCUMENT, delta=1e-5, target_epsilon=8),
)
PROMISE = {
    "unit": "document",
    "relation": "add_or_remove_one",
    "delta": 1e-5,
    "target_epsilon": 8.0,
}


def test_a_run_names_unit_relation_and_delta(capsys):
    _print_status(STATUS, Format.JSON)
    said = json.loads(capsys.readouterr().out)
    assert said["run_id"] == "r"
    assert said["privacy"] == PROMISE


def test_what_an_older_orchestrator_does_not_say_is_null(capsys):
    _print_status(replace(STATUS, privacy=None), Format.JSON)
    assert json.loads(capsys.readouterr().out)["privacy"] is None
