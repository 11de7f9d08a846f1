"""`fedgate backup` and `fedgate restore`: what is saved, and what is refused."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from cli.main import app
from common.clock import SystemClock
from common.ids import GatewayId, PlanId, RunId
from common.protocol import LedgerHead
from common.tls import TlsFiles
from orchestrator import backup
from orchestrator.config import Limits, OrchestratorConfig
from orchestrator.database import EVENTS, METADATA, open_database
from orchestrator.engines import url_of
from orchestrator.events import RunStarted
from orchestrator.journal import Journal
from orchestrator.orchestrator import Orchestrator
from orchestrator.weight_store import DamagedWeights
from tests.fakes import INITIAL

SITE = GatewayId("alder")
HEAD = LedgerHead(3, "ab" * 32, insecure_deterministic=False)


def configured(state: Path, federation: str = "acme", database: str = "") -> OrchestratorConfig:
    nowhere = state / "nowhere"
    tls = TlsFiles(authority=nowhere, certificate=nowhere, key=nowhere)
    return OrchestratorConfig(federation=federation, state=state, tls=tls, database=database)


def started(config: OrchestratorConfig) -> Orchestrator:
    return Orchestrator(
        config.state, url_of(config), federation="acme", clock=SystemClock(), limits=Limits()
    )


@pytest.fixture
async def running(tmp_path):
    """An orchestrator that has weights, a run and a gateway's countersigned head."""
    orchestrator = started(configured(tmp_path / "o"))
    orchestrator._weights.put(INITIAL.to_bytes())
    Journal(orchestrator.fence, SystemClock()).create_run(
        RunId("run"), b"plan", PlanId("0" * 64), RunStarted(5.0)
    )
    orchestrator.ledger_heads.confirm(SITE, HEAD)
    yield orchestrator
    await orchestrator.close()


@pytest.fixture
def saved(running, tmp_path) -> Path:
    """A backup of it, made while it runs."""
    backup.make(configured(tmp_path / "o"), tmp_path / "saved", SystemClock())
    return tmp_path / "saved"


def rows(config: OrchestratorConfig) -> dict[str, list]:
    """Return every row of every table, but for the epoch, which each start raises."""
    engine = open_database(url_of(config))
    tables = [table for table in METADATA.sorted_tables if table.name != "epochs"]
    with engine.connect() as connection:
        found = {table.name: connection.execute(select(table)).all() for table in tables}
    engine.dispose()
    return found


async def test_what_was_saved_is_put_back_whole(saved, running, tmp_path):
    there, again = configured(tmp_path / "o"), configured(tmp_path / "again")
    backup.restore(again, saved)
    assert rows(again) == rows(there)
    restored = started(again)
    assert restored._weights.get(INITIAL.digest) == INITIAL.to_bytes()
    newest = restored.ledger_heads.newest(SITE, insecure_deterministic=False)
    assert newest == running.ledger_heads.newest(SITE, insecure_deterministic=False)
    await restored.close()


def test_a_backup_and_what_comes_of_it_are_the_owners_alone(saved, tmp_path):
    backup.restore(configured(tmp_path / "again"), saved)
    for root in (saved, tmp_path / "again"):
        for path in (root, *root.rglob("*")):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_backup_is_one_moment_of_a_journal_that_is_being_written(running, tmp_path):
    journal, stop = Journal(running.fence, SystemClock()), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            run = RunId(f"r{number}")
            journal.create_run(run, b"p" * 5000, PlanId("0" * 64), RunStarted(5.0))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            backup.make(configured(tmp_path / "o"), tmp_path / f"b{number}", SystemClock())
    finally:
        stop.set()
        writer.join()
    counts = []
    for number in range(5):
        engine = open_database(f"sqlite:///{tmp_path / f'b{number}' / 'journal.db'}")
        with engine.connect() as connection:
            runs = connection.exec_driver_sql("select run_id from runs").scalars().all()
            firsts = connection.execute(select(EVENTS.c.run_id)).scalars().all()
            assert sorted(runs) == sorted(firsts)  # a run and its first event are one transaction
        engine.dispose()
        counts.append(len(runs))
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_the_commands_save_and_restore(saved, running, tmp_path):
    config = tmp_path / "orchestrator.toml"
    tls = "\n".join(f'{name} = "x"' for name in ("authority", "certificate", "key"))

    def run(command: str, state: str, *options: str):
        config.write_text(f'federation = "acme"\nstate = "{tmp_path / state}"\n[tls]\n{tls}\n')
        return CliRunner().invoke(app, [command, "--config", str(config), *options])

    made = run("backup", "o", "--to", str(tmp_path / "b"))
    assert "1 files of weights, with its signing key" in " ".join(made.stdout.split())
    assert run("restore", "again", "--from", str(tmp_path / "b")).exit_code == 0
    assert rows(configured(tmp_path / "again")) == rows(configured(tmp_path / "o"))
    refused = run("restore", "again", "--from", str(tmp_path / "b"))
    assert isinstance(refused.exception, backup.StateInTheWay)


def test_a_folder_that_holds_something_is_not_written_to(saved, tmp_path):
    before = (saved / "backup.json").read_bytes()
    with pytest.raises(backup.FolderTaken, match="new or empty"):
        backup.make(configured(tmp_path / "o"), saved, SystemClock())
    assert (saved / "backup.json").read_bytes() == before


def test_weights_that_are_damaged_are_not_saved_as_if_they_were_not(running, tmp_path):
    flip(tmp_path / "o" / "weights" / INITIAL.digest)
    with pytest.raises(DamagedWeights):
        backup.make(configured(tmp_path / "o"), tmp_path / "b", SystemClock())
    with pytest.raises(backup.NotABackup, match="no whole backup"):
        backup.restore(configured(tmp_path / "again"), tmp_path / "b")


def test_where_no_journal_is_nothing_is_saved(tmp_path):
    with pytest.raises(backup.NoJournal, match="start the orchestrator once"):
        backup.make(configured(tmp_path / "o"), tmp_path / "b", SystemClock())
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("database", ["postgresql://u@h/d"])
def test_a_journal_in_postgresql_is_left_to_its_own_tools(saved, tmp_path, database):
    elsewhere = configured(tmp_path / "again", database=database)
    with pytest.raises(backup.NotOfPostgresql, match="pg_dump"):
        backup.make(elsewhere, tmp_path / "b", SystemClock())
    with pytest.raises(backup.NotOfPostgresql, match="pg_dump"):
        backup.restore(elsewhere, saved)


DAMAGE = {
    "journal.db is damaged": lambda folder: flip(folder / "journal.db"),
    "signing-key.pem is damaged": lambda folder: flip(folder / "signing-key.pem"),
    "0 of 1 files": lambda folder: (folder / "weights" / INITIAL.digest).unlink(),
    "backup.json: No such": lambda folder: (folder / "backup.json").unlink(),
    "another version, or damaged": lambda folder: (folder / "backup.json").write_text("{}"),
    "journal.db: No such": lambda folder: (folder / "journal.db").unlink(),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("said", DAMAGE)
def test_a_backup_that_is_not_whole_is_refused_and_starts_nothing(saved, tmp_path, said):
    DAMAGE[said](saved)
    with pytest.raises(backup.NotABackup, match=said):
        backup.restore(configured(tmp_path / "again"), saved)
    assert not (tmp_path / "again" / "journal.db").exists()


def test_weights_that_were_damaged_in_a_backup_are_named_and_start_nothing(saved, tmp_path):
    flip(saved / "weights" / INITIAL.digest)
    with pytest.raises(DamagedWeights, match=INITIAL.digest):
        backup.restore(configured(tmp_path / "again"), saved)
    assert not (tmp_path / "again" / "journal.db").exists()
    assert not (tmp_path / "again" / "weights" / INITIAL.digest).exists()


def test_a_backup_of_another_federation_is_refused(saved, tmp_path):
    with pytest.raises(backup.AnotherFederation, match=r"'acme'.*'globex'"):
        backup.restore(configured(tmp_path / "again", federation="globex"), saved)


@pytest.mark.parametrize("there", ["journal.db", "journal.db-wal", "signing-key.pem"])
def test_what_is_there_is_not_overwritten(saved, tmp_path, there):
    again = configured(tmp_path / "again")
    again.state.mkdir()
    (again.state / there).write_text("kept")
    with pytest.raises(backup.StateInTheWay, match=there):
        backup.restore(again, saved)
    assert (again.state / there).read_text() == "kept"
