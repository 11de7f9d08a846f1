"""What the docs say of `--format json`: every command, and the fields that it has."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from cli.comparison import Comparison
from cli.demo.result import Baselines, DemoResult
from cli.main import app as fedgate
from cli.model_card import ModelCard
from cli.model_proof import ModelProof
from cli.plan_check import PlanCheck
from cli.record_proof import Proof as RecordProof
from common.audit import Record
from common.membership import Roll
from common.protocol import RunStatus
from gateway.audit_heads import Seen
from gateway.cli import app as fedgate_gateway
from gateway.ledger_desk import Proof as LedgerProof
from gateway.merging import Merged
from orchestrator.backup import Manifest

DOCS = Path(__file__).parents[3] / "docs" / "how-to" / "read-json.md"
PRINTED = {  # what a command prints as it is
    "fedgate run watch": RunStatus,
    "fedgate audit list": Record,
    "fedgate-gateway audit show": Seen,
    "fedgate run compare": Comparison,
    "fedgate plan check": PlanCheck,
    "fedgate backup": Manifest,
    "fedgate model card": ModelCard,
    "fedgate model baselines": Baselines,
    "fedgate model verify": ModelProof,
    "fedgate audit verify": RecordProof,
    "fedgate enroll list": Roll,
    "fedgate demo": DemoResult,
    "fedgate-gateway ledger verify": LedgerProof,
    "fedgate-gateway ledger merge": Merged,
}
NUMBERS = ("--sampling-rate", "0.5", "--steps", "2")
SITE = ("--address", "fl.example:8443", "--label", "Drug", "--path", "notes.jsonl")
RUN = {  # commands that need nothing but a folder
    "fedgate plan keygen": ("--name", "olga", "--out", "keys"),
    "fedgate pki init": ("--dir", "pki"),
    "fedgate new task": ("loan_risk",),
    "fedgate-gateway egress": (),
    "fedgate-gateway epsilon": ("--noise-multiplier", "20", *NUMBERS),
    "fedgate-gateway init": (*SITE, "--epsilon-budget", "8"),
}


def documented() -> dict[str, set[str]]:
    """Return the fields that the docs name for each command, of the first form of its result."""
    rows = re.findall(r"^\| (`fedgate.+?) \| (.+) \|$", DOCS.read_text(), re.MULTILINE)
    found = {}
    for commands, told in rows:
        for command in re.findall(r"`(fedgate[^`]*)`", commands):
            found[command] = set(re.findall(r"`([a-z_0-9]+)`", told.partition(";")[0]))
    return found


def names_of(printed: type) -> set[str]:
    if issubclass(printed, BaseModel):
        return set(printed.model_fields)
    return {each.name for each in fields(printed)}


@pytest.mark.parametrize("command", PRINTED)
def test_the_docs_name_the_fields_of_what_is_printed(command):
    assert documented()[command] == names_of(PRINTED[command])


@pytest.mark.parametrize("command", RUN)
def test_the_docs_name_the_fields_that_a_command_prints(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, *words = command.split()
    app = fedgate if name == "fedgate" else fedgate_gateway
    done = CliRunner().invoke(app, [*words, *RUN[command], "--format", "json"])
    assert done.exit_code == 0, done.exception
    (line,) = done.stdout.splitlines()
    assert json.loads(line).keys() == documented()[command]
