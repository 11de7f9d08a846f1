"""`fedgate-gateway ledger`: what is printed, and what the exit code says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from common.accounting import PrivacyEvent, epsilon
from common.countersignature import countersign
from common.ids import RunId, WeightsId
from common.protocol import LedgerHead
from common.randomness import InsecureSeed
from common.tls import Role
from gateway.charges import LedgerInUse, LedgerUnreadable, RoundCharge
from gateway.cli import app
from gateway.countersignatures import LedgerRolledBack
from gateway.ledger import Ledger
from gateway.ledger_desk import NotAKey, NotAnAssumption
from gateway.merging import CostUnknown
from gateway.records import EMPTY, Kind, Record, RecordBroken, after
from tests.certificates import Authority
from tests.unit.gateway.toys import CLINIC, RUN, terms

EVENT = PrivacyEvent(20.0, 0.5, 2)
UNITS = [bytes([number]) * 32 for number in range(40)]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
DELTA = 1e-5


class Place:
    """A gateway's settings and its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.settings = folder / "gateway.toml"
        tls = Authority.make(folder / "keys").issue(Role.GATEWAY, CLINIC)
        tables = {
            "address": "localhost:1",
            "state": str(self.state),
            "data_set": "letters",
            "tls": {name: str(path) for name, path in tls},
            "task": {"reference": "unused", "labels": ["no", "yes"]},
            "data": {"corpus": "points", "site": "a"},
            "trust": {"plan_keys": "unused"},
            "policy": {"epsilon_budget": 8.0},
        }
        self.settings.write_text(tomli_w.dumps(tables))
        self.state.mkdir()

    def ledger(self, seed: InsecureSeed | None = None) -> Ledger:
        name = "ledger.sqlite" if seed is None else "insecure-ledger.sqlite"
        return Ledger.open(f"sqlite:///{self.state / name}", seed=seed)

    def charge(self, *numbers: int, seed: InsecureSeed | None = None) -> None:
        ledger = self.ledger(seed)
        of_run = terms(ledger.bind_data_set("letters", UNITS))
        ledger.begin_run(of_run)
        for number in numbers:
            ledger.charge(RoundCharge(of_run, number, WeightsId("a" * 64), EVENT))
        ledger.close()

    def confirm(self, head: LedgerHead | None = None, key: Ed25519PrivateKey = KEY) -> None:
        ledger = self.ledger()
        ledger.confirm(CLINIC, countersign(key, "clinics", CLINIC, head or ledger.head))
        ledger.close()

    def ask(self, *arguments: str) -> Result:
        """Run one command; what it raises is in the result."""
        given = ["ledger", *arguments, "--config", str(self.settings)]
        return CliRunner().invoke(app, given)

    def told(self, *arguments: str) -> str:
        result = self.ask(*arguments)
        assert result.exit_code == 0, result.exception
        return result.stdout

    def json(self, *arguments: str) -> dict:
        return json.loads(self.told(*arguments, "--format", "json"))


@pytest.fixture
def place(tmp_path) -> Place:
    """A gateway that has charged three rounds."""
    place = Place(tmp_path)
    place.charge(1, 2, 3)
    return place


def test_show_lists_the_charges_their_sum_and_the_head(place):
    shown = place.json("show")
    assert [charge["round"] for charge in shown["charges"]] == [1, 2, 3]
    assert shown["epsilon"]["pld"] == epsilon([EVENT.times(3)], DELTA).pld
    assert shown["head"]["sequence"] == 3
    assert shown["merged"] == []
    text = place.told("show")
    assert f"head: record 3, {shown['head']['hash']}" in text
    assert "(PLD)" in text


def test_verify_prints_the_epsilon_of_three_computations(place):
    place.confirm()
    proof = place.json("verify")
    (account,) = proof["accounts"]
    spent = epsilon([EVENT.times(3)], DELTA)
    assert (account["spent"]["pld"], account["spent"]["rdp"]) == (spent.pld, spent.rdp)
    assert account["units"] == ["example"]
    assert (account["relation"], account["delta"]) == ("add_or_remove_one", DELTA)
    assert account["second"] == pytest.approx(spent.rdp, rel=0.01)
    assert proof["head"] == {k: proof["countersigned"]["head"][k] for k in ("sequence", "hash")}
    text = place.told("verify")
    assert "the chain is whole: record 3" in text
    assert "record 3 is countersigned by 3b6a27bc" in text
    assert "at delta 1e-05, add_or_remove_one neighbours" in text


def test_verify_names_the_first_bad_record_and_exits_with_one(place):
    ledger = place.ledger()
    with ledger.transaction() as connection:
        connection.exec_driver_sql("update records set hash = 'x' where sequence = 2")
    ledger.close()
    result = place.ask("verify")
    assert isinstance(result.exception, RecordBroken)
    command = (sys.executable, "-m", "gateway", "ledger", "verify", "--format", "json")
    shown = subprocess.run(
        [*command, "--config", place.settings], capture_output=True, check=False, text=True
    )
    assert shown.returncode == 1
    assert json.loads(shown.stdout)["error"]["kind"] == "RecordBroken"
    assert "record 2 is the first bad one" in shown.stderr


def test_verify_fails_while_countersigned_records_are_missing(place):
    place.confirm(LedgerHead(9, "9" * 64))
    assert isinstance(place.ask("verify").exception, LedgerRolledBack)


def test_verify_may_be_asked_while_the_gateway_runs(place):
    running = place.ledger()
    assert place.json("verify")["head"]["sequence"] == 3
    running.close()


@pytest.fixture
def exported(place) -> Path:
    path = place.folder / "export.jsonl"
    path.write_text(place.told("export"))
    return path


def test_an_export_holds_every_record_and_can_be_verified_far_away(place, exported):
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    assert [line["sequence"] for line in lines] == [1, 2, 3]
    shutil.rmtree(place.state)
    proof = place.json("verify", "--file", str(exported))
    assert proof["head"] == {"sequence": 3, "hash": lines[-1]["hash"]}
    assert proof["accounts"][0]["spent"]["pld"] == epsilon([EVENT.times(3)], DELTA).pld


def test_an_export_holds_no_secret(place, exported):
    ledger = place.ledger()
    with ledger.transaction() as connection:
        secrets = connection.exec_driver_sql("select secret from charges").scalars().all()
    text = exported.read_text()
    assert len(secrets) == 3
    assert not [each for each in (*secrets, ledger.data_key) if each.hex() in text]
    ledger.close()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_altered_export_is_refused_by_its_first_bad_record(place, exported, number):
    lines = exported.read_text().splitlines()
    lines[number - 1] = lines[number - 1].replace(
        '"noise_multiplier": 20.0', '"noise_multiplier": 40.0'
    )
    exported.write_text("\n".join(lines))
    error = place.ask("verify", "--file", str(exported)).exception
    assert isinstance(error, RecordBroken)
    assert error.sequence == number


def test_a_file_that_is_no_export_is_refused_by_its_first_bad_line(place, exported):
    exported.write_text(exported.read_text() + "something else\n")
    error = place.ask("verify", "--file", str(exported)).exception
    assert isinstance(error, LedgerUnreadable)
    assert "line 4 of" in str(error)


@pytest.mark.parametrize(
    ("field", "value"), [("mechanism", "magic"), ("round", [1]), ("steps", "many"), ("run", None)]
)
def test_a_whole_chain_of_records_that_no_ledger_wrote_is_refused(place, exported, field, value):
    first = Record.from_json(json.loads(exported.read_text().splitlines()[0]))
    facts = {name: each for name, each in first.content.items() if name != field}
    forged = after(EMPTY, Kind.CHARGE, facts if value is None else {**facts, field: value})
    exported.write_text(json.dumps(forged.to_json()))
    error = place.ask("verify", "--file", str(exported)).exception
    assert isinstance(error, LedgerUnreadable)
    assert "does not hold what its kind must" in str(error)


def test_seeded_charges_have_no_epsilon_here_or_far_away(place):
    place.charge(1, seed=InsecureSeed(7, CLINIC))
    seeded = ("--insecure-deterministic", "7")
    assert place.json("verify", *seeded)["accounts"][0]["spent"] is None
    path = place.folder / "seeded.jsonl"
    path.write_text(place.told("export", *seeded))
    assert place.json("verify", "--file", str(path))["accounts"][0]["spent"] is None
    assert "none: seeded" in place.told("verify", *seeded)
    assert "nothing is private" in place.told("show", *seeded)


@pytest.fixture
def backup(place) -> Path:
    """An image of three rounds, while the gateway went on to five."""
    path = place.folder / "backup.sqlite"
    shutil.copy(place.state / "ledger.sqlite", path)
    place.charge(4, 5)
    return path


def roll_back(place: Place, backup: Path) -> Path:
    """Put the backup in the ledger's place; return where the newest image lies now."""
    newest = place.folder / "newest.sqlite"
    shutil.move(place.state / "ledger.sqlite", newest)
    shutil.copy(backup, place.state / "ledger.sqlite")
    return newest


def test_a_merge_takes_the_newest_image_in_and_leaves_it_as_it_was(place, backup):
    newest = roll_back(place, backup)
    before = newest.read_bytes()
    merged = place.json("merge", "--image", str(newest))
    assert (merged["taken"], merged["head"]["sequence"]) == (2, 6)
    assert newest.read_bytes() == before
    assert sorted(path.name for path in place.folder.glob("newest*")) == ["newest.sqlite"]
    assert sorted(path.suffix for path in place.state.iterdir()) == [".lock", ".made", ".sqlite"]
    shown = place.json("show")
    assert [charge["round"] for charge in shown["merged"]] == [4, 5]
    assert shown["epsilon"]["pld"] == epsilon([EVENT.times(5)], DELTA).pld
    assert "merged" in place.told("show")
    assert place.json("verify")["accounts"][0]["charges"] == 5


def test_what_is_missing_can_be_stated(place, backup):
    roll_back(place, backup)
    place.confirm(LedgerHead(5, "5" * 64))
    said = place.told("merge", "--assume-rounds", f"{RUN}:2")
    assert "0 records taken in, 2 rounds stated" in said
    assert "head: record 6" in said
    assert place.json("verify")["accounts"][0]["charges"] == 5


def test_a_run_that_the_ledger_does_not_know_needs_its_cost(place, backup):
    roll_back(place, backup)
    unknown = ("merge", "--assume-rounds", "other:2")
    assert isinstance(place.ask(*unknown).exception, CostUnknown)
    cost = ("--noise-multiplier", "20", "--sampling-rate", "0.5", "--steps", "2")
    assert len(place.json(*unknown, *cost)["assumed"]) == 2


@pytest.mark.parametrize("text", ["run-1", "run-1:", "run-1:0", "run-1:-1", ":3", "Run 1:3"])
def test_a_statement_that_cannot_be_read_is_refused(place, text):
    assert isinstance(place.ask("merge", "--assume-rounds", text).exception, NotAnAssumption)


def test_a_running_gateways_ledger_is_not_merged(place):
    running = place.ledger()
    error = place.ask("merge", "--nothing-missing").exception
    assert isinstance(error, LedgerInUse)
    running.close()


def test_a_missing_image_is_said(place):
    error = place.ask("merge", "--image", str(place.folder / "nowhere")).exception
    assert isinstance(error, LedgerUnreadable)
    assert "nowhere" in str(error)


def test_a_new_key_is_taken_once_it_is_trusted(place):
    other = Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
    public = other.public_key().public_bytes_raw().hex()
    assert "no key is known yet" in place.told("trust", public)
    place.confirm()
    assert "known by this key from now on" in place.told("trust", public)
    assert place.json("trust", public) == {"trusted": True}
    assert place.json("verify")["countersigned"] is None
    place.confirm(key=other)
    assert place.json("verify")["countersigned"]["public_key"] == public
    assert isinstance(place.ask("trust", "no key").exception, NotAKey)


def test_trusting_a_new_key_does_not_forget_what_is_missing(place):
    place.confirm(LedgerHead(9, "9" * 64))
    place.told("trust", "ab" * 32)
    assert isinstance(place.ask("verify").exception, LedgerRolledBack)


def test_rounds_of_a_first_run_can_be_stated_for_an_empty_ledger(tmp_path):
    place = Place(tmp_path)
    place.ledger().close()
    cost = ("--noise-multiplier", "20", "--sampling-rate", "0.5", "--steps", "2")
    stated = ("merge", "--assume-rounds", f"{RunId('lost')}:3", *cost)
    assert isinstance(place.ask(*stated).exception, CostUnknown)  # for whom is not said
    place.told(*stated, "--unit", "document")
    assert place.json("verify")["accounts"][0]["charges"] == 3
    assert place.json("show")["units"] == ["document"]
