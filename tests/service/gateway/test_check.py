"""`fedgate-gateway check`: which units of privacy a site's own data carry."""

from __future__ import annotations

import json

import pytest
import tomli_w
from typer.testing import CliRunner

from common.tls import Role
from gateway.cli import app
from tests.certificates import Authority

OWNERS = ["Ann", "Ann", ["Ann", "Bob"]]


@pytest.fixture
def settings(tmp_path):
    """A gateway with three sentences of two documents; the last one belongs to two persons."""
    rows = [
        {"text": "no gout", "tags": "O B-Disease", "document": f"d{n % 2}", "person": owner}
        for n, owner in enumerate(OWNERS)
    ]
    data = tmp_path / "notes.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tls = Authority.make(tmp_path / "keys").issue(Role.GATEWAY, "clinic")
    tables = {
        "address": "localhost:1",
        "tls": {name: str(path) for name, path in tls},
        "task": {"reference": "tasks.ner:TASK", "labels": ["Disease"]},
        "data": {"path": str(data)},
        "policy": {"epsilon_budget": 8.0},
    }
    path = tmp_path / "gateway.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


def told(settings, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["check", "--config", str(settings), *arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


def test_it_counts_the_units_and_what_belongs_to_several_persons(settings):
    report = json.loads(told(settings, "--format", "json"))["data"]
    assert report["per_unit"] == {"example": 3, "document": 2, "person": 1}
    assert report["shared"] == 1
    shown = told(settings)
    assert "units: document" in shown
    assert "left out where the unit is the person" in shown


def test_a_unit_that_is_not_in_every_line_is_not_counted(settings):
    data = settings.with_name("notes.jsonl")
    data.write_text(data.read_text() + '{"text": "well", "tags": "O", "document": "d2"}\n')
    report = json.loads(told(settings, "--format", "json"))["data"]
    assert report["per_unit"] == {"example": 4, "document": 3}
