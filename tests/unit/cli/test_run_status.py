"""What a run's state says of privacy, as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

from cli.run_commands import _print_status
from common.bad_updates import Standing, UpdateRefusalReason
from common.console import Format
from common.ids import GatewayId, PlanId, RunId
from common.plan import Privacy, Unit
from common.protocol import GatewayStatus, RunState, RunStatus

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


def test_a_run_names_who_is_watched_set_aside_or_refused(capsys):
    gateways = tuple(
        GatewayStatus(GatewayId(name), True, True, 3, 1, **changes)
        for name, changes in {
            "a": {"standing": Standing.GOOD, "score": 0.0},
            "b": {"standing": Standing.WATCH, "score": 0.36},
            "c": {"standing": Standing.QUARANTINE, "score": 0.7},
            "d": {"refused": UpdateRefusalReason.COPY},
        }.items()
    )
    _print_status(replace(STATUS, gateways=gateways), Format.TEXT)
    said = " ".join(capsys.readouterr().out.split())
    assert "b on watch (score 0.36), c in quarantine (score 0.70), d's update refused" in said
    assert "a on" not in said
    _print_status(replace(STATUS, gateways=gateways, norm_bound=1.5), Format.JSON)
    found = json.loads(capsys.readouterr().out)
    assert [each["standing"] for each in found["gateways"]] == ["good", "watch", "quarantine", None]
    assert (found["norm_bound"], found["gateways"][3]["refused"]) == (1.5, "copy")
