"""What a run's state says of privacy, as JSON."""

from __future__ import annotations

import json

from cli.run_commands import _print_status
from common.console import Format
from common.ids import PlanId, RunId
from common.plan import Privacy, Unit
from common.protocol import RunState, RunStatus


def test_a_run_names_unit_relation_and_delta(capsys):
    status = RunStatus(
        RunId("r"), "n", RunState.RUNNING, PlanId("c" * 64), 1, 2, gateways=(), scores=()
    )
    privacy = Privacy(unit=Unit.DOCUMENT, delta=1e-5, target_epsilon=8)
    _print_status(status, Format.JSON, privacy)
    said = json.loads(capsys.readouterr().out)
    assert said["run_id"] == "r"
    assert said["privacy"] == {
        "unit": "document",
        "relation": "add_or_remove_one",
        "delta": 1e-5,
        "target_epsilon": 8.0,
    }
