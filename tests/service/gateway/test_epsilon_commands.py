"""`fedgate-gateway epsilon` and `noise`: no epsilon without unit, relation and delta."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from gateway.cli import app

STEPS = ("--sampling-rate", "1", "--steps", "3", "--delta", "1e-6", "--unit", "document")


@pytest.mark.parametrize(
    "command",
    [("epsilon", "--noise-multiplier", "20"), ("noise", "--target-epsilon", "0.5")],
    ids=lambda command: command[0],
)
def test_they_name_for_whom_and_against_what_the_figure_holds(command):
    shown = CliRunner().invoke(app, [*command, *STEPS])
    assert "at delta 1e-06, add_or_remove_one neighbours, unit: document" in shown.stdout
    found = json.loads(CliRunner().invoke(app, [*command, *STEPS, "--format", "json"]).stdout)
    named = [found[name] for name in ("unit", "relation", "delta")]
    assert named == ["document", "add_or_remove_one", 1e-6]
    assert 0 < found["pld"] <= 0.5
