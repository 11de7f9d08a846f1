from __future__ import annotations

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from common.clock import SystemClock
from common.protocol import Body, Chunk
from common.transfer import digest_of
from orchestrator.database import open_database
from orchestrator.events import RunCancelled, RunStarted
from orchestrator.journal import Journal, JournalFailed, Superseded
from orchestrator.staging import Slot, Staging, UploadInProgress
from orchestrator.weight_store import (
    DamagedWeights,
    StorageFailed,
    UnknownWeights,
    WeightStore,
)

DATA = b"some weights"
SLOT = Slot("r", 1, "a")


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'journal.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def store(tmp_path, engine):
    return WeightStore(tmp_path / "weights", engine)


def test_sqlite_keeps_every_commit(engine):
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_the_journal_gives_back_what_was_recorded(engine):
    journal = Journal(engine, SystemClock())
    journal.create_run("r", b"plan", "1" * 64, RunStarted(5.0))
    journal.append("r", 1, [RunCancelled()])
    (stored,) = Journal(engine, SystemClock()).runs()
    assert stored.events == (RunStarted(5.0), RunCancelled())
    assert (stored.run_id, stored.plan) == ("r", b"plan")


def test_an_older_writer_is_fenced_off(engine):
    older = Journal(engine, SystemClock())
    older.create_run("r", b"plan", "1" * 64, RunStarted(5.0))
    Journal(engine, SystemClock())
    with pytest.raises(Superseded, match="writer 2, this one is 1"):
        older.append("r", 1, [RunCancelled()])
    with pytest.raises(Superseded):
        older.create_run("s", b"plan", "1" * 64, RunStarted(5.0))


def test_a_journal_that_cannot_write_says_so_and_only_the_log_says_why(engine):
    journal = Journal(engine, SystemClock())
    journal.create_run("r", b"plan", "1" * 64, RunStarted(5.0))
    with capture_logs() as logged, pytest.raises(JournalFailed) as caught:
        journal.append("r", 0, [RunCancelled()])
    assert str(caught.value) == (
        "the orchestrator's journal failed, its log says why: try again later"
    )
    (line,) = logged
    assert line["event"] == "journal_failed"
    assert "UNIQUE" in line["why"]


def test_a_folder_that_is_gone_says_so(tmp_path):
    staging = Staging(tmp_path / "uploads")
    (tmp_path / "uploads").rmdir()
    with pytest.raises(StorageFailed), staging.receiving(SLOT, body(DATA), limit=100):
        pass


def test_weights_are_named_by_their_digest_and_kept_once(store, tmp_path):
    assert store.put(DATA) == store.put(DATA) == digest_of(DATA)
    assert store.get(digest_of(DATA)) == DATA
    assert store.read(digest_of(DATA), 5, 100) == b"weights"
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [digest_of(DATA)]


def test_weights_outlive_the_store(store, tmp_path, engine):
    digest = store.put(DATA)
    (tmp_path / "weights" / "left.tmp").write_bytes(b"torn")
    assert WeightStore(tmp_path / "weights", engine).get(digest) == DATA
    assert not (tmp_path / "weights" / "left.tmp").exists()


def test_a_file_without_its_row_is_written_again(store, tmp_path):
    (tmp_path / "weights" / digest_of(DATA)).write_bytes(b"torn")
    assert store.get(store.put(DATA)) == DATA


def test_damaged_weights_are_not_given_out(store, tmp_path):
    digest = store.put(DATA)
    (tmp_path / "weights" / digest).write_bytes(b"other weights")
    with pytest.raises(DamagedWeights):
        store.get(digest)


def test_missing_weights_and_disks_are_told_apart(store, tmp_path):
    with pytest.raises(UnknownWeights):
        store.get("1" * 64)
    digest = store.put(DATA)
    (tmp_path / "weights" / digest).unlink()
    for read in (store.get, lambda name: store.read(name, 0, 1)):
        with pytest.raises(StorageFailed):
            read(digest)
    (tmp_path / "weights").rmdir()
    with pytest.raises(StorageFailed):
        store.put(b"more")


def body(data: bytes, offset: int = 0) -> Body:
    return Body(digest_of(data), len(data), offset)


def test_an_upload_is_resumed_where_it_was_torn(tmp_path):
    staging = Staging(tmp_path)
    with staging.receiving(SLOT, body(DATA), limit=100) as upload:
        upload.take(Chunk(0, DATA[:4]))
    assert staging.held(SLOT, digest_of(DATA)) == 4
    with staging.receiving(SLOT, body(DATA, 4), limit=100) as upload:
        upload.take(Chunk(4, DATA[4:]))
        assert upload.checked() == DATA


def test_an_empty_body_is_a_body(tmp_path):
    with Staging(tmp_path).receiving(SLOT, body(b""), limit=100) as upload:
        assert upload.checked() == b""


def test_a_slot_takes_one_upload_at_a_time(tmp_path):
    staging = Staging(tmp_path)
    with (
        staging.receiving(SLOT, body(DATA), limit=100),
        pytest.raises(UploadInProgress),
        staging.receiving(SLOT, body(DATA), limit=100),
    ):
        pass


def test_another_digest_takes_the_slots_place(tmp_path):
    staging = Staging(tmp_path)
    for data in (DATA, b"others"):
        with staging.receiving(SLOT, body(data), limit=100) as upload:
            upload.take(Chunk(0, data))
    assert staging.held(SLOT, digest_of(DATA)) == 0
    assert staging.held(SLOT, digest_of(b"others")) == 6


def test_what_is_left_of_closed_rounds_is_deleted(tmp_path):
    staging, later = Staging(tmp_path), Slot("r", 11, "a")
    for slot in (SLOT, later):
        with staging.receiving(slot, body(DATA), limit=100) as upload:
            upload.take(Chunk(0, DATA))
    with staging.receiving(Slot("r", 2, "a"), body(DATA), limit=100):
        staging.sweep([SLOT])
    assert staging.held(SLOT, digest_of(DATA)) == len(DATA)
    assert staging.held(later, digest_of(DATA)) == 0
