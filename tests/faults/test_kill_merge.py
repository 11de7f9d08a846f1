"""kill -9 in a merge: the ledger is the old one or the new one, and the merge can be done again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from common.accounting import PrivacyEvent
from common.ids import WeightsId
from common.tls import Role
from gateway.charges import RoundCharge
from gateway.ledger import Ledger
from tests.certificates import Authority
from tests.unit.gateway.toys import CLINIC, terms

ROOT = Path(__file__).parents[2]
EVENT = PrivacyEvent(2.0, 0.5, 2)
UNITS = [bytes([number]) * 32 for number in range(40)]
POINTS = {
    "before the merge": ("gateway.ledger_desk:merge:before::1", 2),
    "between the tables and the record": ("gateway.ledger_chain:append:before::1", 2),
    "after the record, before the commit": ("gateway.ledger_chain:append:after::1", 2),
    "after the commit": ("gateway.ledger_desk:merge:after::1", 5),
}


def charge(path: Path, *numbers: int) -> None:
    ledger = Ledger.open(f"sqlite:///{path}")
    of_run = terms(ledger.bind_data_set("letters", UNITS))
    ledger.begin_run(of_run)
    for number in numbers:
        ledger.charge(RoundCharge(of_run, number, WeightsId("a" * 64), EVENT))
    ledger.close()


def spent(path: Path) -> int:
    """Open a ledger, every record checked, and return how many rounds it counts."""
    ledger = Ledger.open(f"sqlite:///{path}")
    count = len(ledger.events("letters"))
    ledger.close()
    return count


@pytest.fixture
def settings(tmp_path) -> Path:
    tls = Authority.make(tmp_path / "keys").issue(Role.GATEWAY, CLINIC)
    tables = {
        "address": "localhost:1",
        "state": str(tmp_path / "state"),
        "data_set": "letters",
        "tls": {name: str(path) for name, path in tls},
        "task": {"reference": "unused", "labels": ["no", "yes"]},
        "data": {"corpus": "points", "site": "a"},
        "trust": {"plan_keys": "unused"},
        "policy": {"epsilon_budget": 8.0},
    }
    path = tmp_path / "gateway.toml"
    path.write_text(tomli_w.dumps(tables))
    return path


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("point", "counted"), POINTS.values(), ids=POINTS.keys())
def test_a_merge_that_is_killed_is_done_wholly_or_not_at_all(tmp_path, settings, point, counted):
    ledger, image = tmp_path / "state" / "ledger.sqlite", tmp_path / "image.sqlite"
    ledger.parent.mkdir()
    charge(ledger, 1, 2)
    shutil.copy(ledger, image)
    charge(image, 3, 4, 5)
    merge = ["gateway", "ledger", "merge", "--image", image, "--config", settings]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.faults.killed", point, "--", *merge], cwd=ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert spent(ledger) == counted
    again = subprocess.run(
        [sys.executable, "-m", *merge], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if counted == 2:
        assert again.returncode == 0, again.stderr
    else:
        assert "there is nothing to merge" in again.stderr
    assert spent(ledger) == 5
