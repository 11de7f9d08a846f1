"""The chain as it lies on the disk: whatever is altered there is found when it is opened."""

from __future__ import annotations

import ast
import json
import shutil
import sqlite3
import time  # noqa: TID251 - its clock is set back
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import gateway
from common.accounting import PrivacyEvent
from common.countersignature import countersign
from common.ids import GatewayId, WeightsId
from common.protocol import LedgerHead
from common.randomness import InsecureSeed
from gateway.charges import Equivocation, LedgerUnreadable, RoundCharge
from gateway.countersignatures import (
    CountersignatureForged,
    LedgerRolledBack,
    OrchestratorKeyChanged,
)
from gateway.ledger import Ledger
from gateway.ledger_chain import UnrecordedCharge
from gateway.records import Kind, RecordBroken
from tests.unit.gateway.toys import CLINIC, RUN, terms

PARENT, OTHER = WeightsId("a" * 64), WeightsId("b" * 64)
EVENT = PrivacyEvent(2.0, 0.5, 2)
UNITS = [bytes([number]) * 32 for number in range(40)]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger.db"


def opened(path: Path, **options) -> Ledger:
    return Ledger.open(f"sqlite:///{path}", **options)


def charge(ledger: Ledger, *numbers: int, parent: WeightsId = PARENT) -> None:
    data = ledger.bind_data_set("letters", UNITS)
    ledger.begin_run(terms(data))
    for number in numbers:
        ledger.charge(RoundCharge(terms(data), number, parent, EVENT))


@pytest.fixture
def closed(path) -> Path:
    """The file of a ledger of seven records: charges, and between them a refused parent."""
    ledger = opened(path)
    charge(ledger, 1, 2, 3)
    with pytest.raises(Equivocation):
        charge(ledger, 2, parent=OTHER)
    charge(ledger, 4, 5, 6)
    ledger.close()
    return path


def alter(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as other, other:
        for statement in statements:
            other.execute(statement)
            assert other.total_changes


def test_each_charge_and_each_refused_parent_is_one_record(closed):
    ledger = opened(closed)
    records = ledger.records()
    ledger.close()
    assert [record.sequence for record in records] == [1, 2, 3, 4, 5, 6, 7]
    assert [record.kind for record in records].index(Kind.REFUSED_PARENT) == 3
    assert [r.content["round"] for r in records] == [1, 2, 3, 2, 4, 5, 6]
    assert records[3].content["parent"] == OTHER


def test_the_head_stands_for_the_last_record_and_stays_over_a_restart(closed):
    heads = []
    for _ in range(2):
        ledger = opened(closed)
        heads.append(ledger.head)
        assert ledger.records()[-1].hash == ledger.head.hash
        ledger.close()
    assert heads[0] == heads[1] == LedgerHead(7, heads[0].hash)


def test_a_repeated_round_or_refusal_writes_no_record(closed):
    ledger = opened(closed)
    before = ledger.head
    charge(ledger, 1, 6)
    with pytest.raises(Equivocation):
        charge(ledger, 2, parent=OTHER)
    assert ledger.head == before
    ledger.close()


def test_no_record_holds_a_secret_a_state_or_a_time(closed):
    with closing(sqlite3.connect(closed)) as other:
        secrets = [bytes(row[0]).hex() for row in other.execute("select secret from charges")]
        (key,) = other.execute("select data_key from stamp").fetchone()
        said = " ".join(row[0] for row in other.execute("select facts from records"))
    assert len(secrets) == 6
    assert not [secret for secret in (*secrets, bytes(key).hex()) if secret in said]
    names = set(json.loads(said.split(" ")[0]))
    assert not names & {"secret", "state", "update_digest", "time", "at"}
    assert {"run", "round", "parent", "plan", "unit", "relation", "delta"} <= names
    assert {"noise_multiplier", "sampling_rate", "steps", "clipping_norm"} <= names
    assert {"mechanism", "data_set", "data_digest", "effective", "gateway", "mark"} <= names


RECORD_COLUMNS = {
    "facts": "replace(facts, '2.0', '9.0')",
    "kind": "'note'",
    "previous": "replace(previous, substr(previous, 1, 1), 'x')",
    "hash": "replace(hash, substr(hash, 1, 1), 'x')",
}


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("sequence", [1, 3, 7])
@pytest.mark.parametrize("column", RECORD_COLUMNS)
def test_a_record_that_was_altered_is_named_at_the_opening(closed, column, sequence, exclusive):
    value = RECORD_COLUMNS[column]
    alter(closed, f"update records set {column} = {value} where sequence = {sequence}")  # noqa: S608
    with pytest.raises(RecordBroken, match=f"record {sequence} is the first bad one"):
        opened(closed, exclusive=exclusive)


@pytest.mark.parametrize("sequence", [1, 4, 6])
def test_a_record_that_was_taken_out_is_named(closed, sequence):
    alter(closed, f"delete from records where sequence = {sequence}")  # noqa: S608
    with pytest.raises(RecordBroken, match=f"record {sequence} is the first bad one"):
        opened(closed)


CHARGE_COLUMNS = {
    "round": "60",
    "parent": "'ffff'",
    "mechanism": "'none'",
    "noise_multiplier": "20.0",
    "sampling_rate": "0.1",
    "steps": "1",
    "clipping_norm": "2.0",
}


@pytest.mark.parametrize("column", CHARGE_COLUMNS)
def test_a_booked_charge_that_was_altered_is_named_by_its_record(closed, column):
    alter(closed, f"update charges set {column} = {CHARGE_COLUMNS[column]} where round = 3")  # noqa: S608
    with pytest.raises(RecordBroken, match=r"record 3 .* is not booked so"):
        opened(closed)


@pytest.mark.parametrize("column", ["gateway", "plan", "effective", "data_digest", "unit"])
def test_a_charged_runs_altered_terms_are_found(closed, column):
    alter(closed, f"update runs set {column} = 'other'")  # noqa: S608
    with pytest.raises(RecordBroken, match="record 1 is the first bad one"):
        opened(closed)


def test_a_charge_that_was_deleted_is_named_by_its_record(closed):
    alter(closed, "delete from charges where round = 5")
    with pytest.raises(RecordBroken, match="record 6 is the first bad one"):
        opened(closed)


def test_a_refusal_that_was_deleted_is_named_by_its_record(closed):
    alter(closed, "delete from refused_parents")
    with pytest.raises(RecordBroken, match="record 4 is the first bad one"):
        opened(closed)


def test_a_charge_without_a_record_is_found(closed):
    alter(closed, "delete from records where sequence = 7")
    with pytest.raises(UnrecordedCharge, match="round 6 of run 'run-1' is booked and no record"):
        opened(closed)


def test_what_changes_in_a_charges_life_is_not_in_the_chain(closed):
    ledger = opened(closed)
    before = ledger.head
    ledger.record_update(RUN, 1, OTHER)
    ledger.release(RUN, 3)
    assert ledger.head == before
    ledger.close()
    opened(closed).close()


HEADS = "drop table audit_heads"


def as_first_version(path: Path) -> None:
    """Put a ledger back to its tables of before there was a chain."""
    revision = "update alembic_version set version_num = '0001'"
    norms = "alter table charges drop column next_clipping_norm"
    alter(path, revision, "drop table records", "drop table orchestrator", HEADS, norms)


def test_a_ledger_of_the_first_version_is_chained_when_it_is_opened(closed, tmp_path):
    as_first_version(closed)
    older = tmp_path / "older.db"
    shutil.copy(closed, older)
    alter(older, "delete from charges where round > 3")
    ledger, image = opened(closed), opened(older)
    records, fewer = ledger.records(), image.records()
    assert [r.content["round"] for r in records] == [1, 2, 3, 4, 5, 6, 2]
    assert records[:3] == fewer[:3], "every image of one ledger has the same chain"
    assert {record.content["mark"] for record in records[:6]} == {""}
    assert ledger.events("letters") == (EVENT,) * 6
    charge(ledger, 7)
    assert ledger.head.sequence == 8
    ledger.close()
    image.close()


def test_a_ledger_of_the_second_version_goes_on_at_the_norms_of_its_plans(closed):
    ledger = opened(closed)
    before, head = ledger.charges(), ledger.head
    ledger.close()
    revision = "update alembic_version set version_num = '0002'"
    alter(closed, revision, HEADS, "alter table charges drop column next_clipping_norm")
    ledger = opened(closed)
    assert (ledger.charges(), ledger.head) == (before, head)
    charge(ledger, 7)
    assert ledger.charges()[-1].clipping_norm == before[0].terms.effective.clipping_norm
    ledger.close()


def test_a_reader_does_not_bring_an_old_ledger_up_to_date(closed):
    as_first_version(closed)
    with pytest.raises(LedgerUnreadable, match="starting the gateway brings an older one up"):
        opened(closed, exclusive=False)


def confirmed(ledger: Ledger, head: LedgerHead | None = None, key=KEY, federation="clinics"):
    return countersign(key, federation, CLINIC, head or ledger.head)


@pytest.fixture
def ledger(closed):
    ledger = opened(closed)
    yield ledger
    ledger.close()


def test_a_countersignature_is_kept_as_proof(ledger, closed):
    given = confirmed(ledger)
    ledger.confirm(CLINIC, given)
    ledger.close()
    again = opened(closed)
    assert again.countersigned() == given
    again.check_standing()
    again.close()


def test_a_ledger_ahead_of_what_was_countersigned_may_go_on(ledger):
    ledger.confirm(CLINIC, confirmed(ledger))
    charge(ledger, 7, 8)
    ledger.check_standing()
    ledger.confirm(CLINIC, confirmed(ledger))
    assert ledger.countersigned().head.sequence == 9


@pytest.mark.parametrize(
    "head", [LedgerHead(8, "c" * 64), LedgerHead(7, "c" * 64), LedgerHead(3, "c" * 64)]
)
def test_a_ledger_that_lacks_what_was_countersigned_spends_nothing_more(ledger, closed, head):
    ledger.confirm(CLINIC, confirmed(ledger, head))
    before = ledger.charges()
    for number in (1, 7):
        with pytest.raises(LedgerRolledBack, match=rf"record {head.sequence} .* ledger merge"):
            charge(ledger, number)
    assert ledger.charges() == before
    ledger.close()
    again = opened(closed)
    with pytest.raises(LedgerRolledBack):
        again.check_standing()
    again.close()


def test_a_lower_word_never_replaces_what_the_ledger_lacks(ledger):
    ledger.confirm(CLINIC, confirmed(ledger, LedgerHead(9, "c" * 64)))
    for lower in (
        LedgerHead(7, ledger.head.hash),
        LedgerHead(8, "d" * 64),
        LedgerHead(0, "0" * 64),
    ):
        ledger.confirm(CLINIC, confirmed(ledger, lower))
    assert ledger.countersigned().head == LedgerHead(9, "c" * 64)


def test_another_key_is_refused_until_it_is_trusted(ledger):
    first = confirmed(ledger)
    ledger.confirm(CLINIC, first)
    for other in (confirmed(ledger, key=OTHER_KEY), confirmed(ledger, federation="others")):
        with pytest.raises(OrchestratorKeyChanged, match="ask its operator, over another channel"):
            ledger.confirm(CLINIC, other)
    assert ledger.countersigned() == first


@pytest.mark.parametrize(
    "forge",
    [
        lambda ledger: countersign(KEY, "clinics", GatewayId("another"), ledger.head),
        lambda ledger: confirmed(ledger, LedgerHead(7, ledger.head.hash, True)),
    ],
    ids=["for another gateway", "for the other mode"],
)
def test_a_word_for_another_ledger_is_refused(ledger, forge):
    with pytest.raises(CountersignatureForged):
        ledger.confirm(CLINIC, forge(ledger))
    assert ledger.countersigned() is None


def test_a_seeded_ledger_has_a_head_of_its_own(tmp_path):
    ledger = opened(tmp_path / "seeded.db", seed=InsecureSeed(7, CLINIC))
    charge(ledger, 1)
    assert ledger.head.insecure_deterministic
    assert ledger.records()[0].content["insecure_deterministic"] is True
    ledger.close()


def test_on_a_full_disk_nothing_is_charged_by_halves(path):
    ledger = opened(path)
    charge(ledger, 1)
    with ledger._engine.connect() as connection:  # the same limit as a full disk's
        pages = connection.exec_driver_sql("pragma page_count").scalar()
        connection.exec_driver_sql(f"pragma max_page_count = {pages}")
    paid = 1

    def spend() -> None:
        nonlocal paid
        while paid < 1000:
            charge(ledger, paid + 1)
            paid += 1

    with pytest.raises(LedgerUnreadable, match=r"disk is full.*nothing is trained"):
        spend()
    ledger.close()
    again = opened(path)
    assert [booked.round for booked in again.charges()] == list(range(1, paid + 1))
    charge(again, paid + 1)
    assert again.head.sequence == paid + 1
    again.close()


def test_a_clock_set_back_changes_nothing(path, monkeypatch):
    heads = []
    for hours in (0, -1, -24 * 365 * 60, 5):
        real = time.time()
        monkeypatch.setattr(time, "time", lambda real=real, hours=hours: real + 3600 * hours)
        ledger = opened(path)
        charge(ledger, len(heads) + 1)
        ledger.confirm(CLINIC, confirmed(ledger))
        heads.append(ledger.head.sequence)
        ledger.close()
        monkeypatch.undo()
    assert heads == [1, 2, 3, 4]


CLOCKS = {"time", "datetime", "calendar", "common.clock"}


def test_no_module_of_the_gateway_that_decides_can_read_a_clock():
    read = 0
    # certificates end, and what renews or checks them has to know when: it decides nothing else;
    # neither does what people see and turn
    folder = Path(gateway.__file__).parent
    names = ("checking.py", "cli.py", "pause.py", "renewal.py", "web_commands.py", "web_links.py")
    with_clock = {folder / name for name in names} | set((folder / "web").iterdir())
    for source in sorted(set(folder.rglob("*.py")) - with_clock):
        tree = ast.parse(source.read_text())
        names = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not names & CLOCKS, source
        assert "current_timestamp" not in source.read_text().lower(), source
        read += 1
    assert read > 25
