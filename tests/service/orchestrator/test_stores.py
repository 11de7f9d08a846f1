from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select, text
from structlog.testing import capture_logs

from common.audit import Action
from common.certificates import Certificate
from common.clock import SystemClock
from common.membership import Member, Roll
from common.protocol import Body, Chunk, LedgerHead
from common.tls import Identity, Role
from common.transfer import LengthMismatch, digest_of
from common.update_form import UpdateForm
from common.weights import Layout, MalformedWeights, NotFinite, Weights
from orchestrator.auditing import process_started
from orchestrator.callers import Callers
from orchestrator.config import Limits
from orchestrator.database import CONFIRMATIONS
from orchestrator.events import RunCancelled, RunStarted
from orchestrator.fencing import Fence, JournalFailed, Superseded
from orchestrator.four_eyes import FourEyes
from orchestrator.journal import Journal
from orchestrator.ledger_heads import LedgerHeads
from orchestrator.orchestrator import SUCCESSOR_CHECK_S, Orchestrator
from orchestrator.roster import Roster
from orchestrator.staging import Slot, Staging, UploadInProgress
from orchestrator.uploads import BEGINNING, StagedBytesDamaged
from orchestrator.weight_store import (
    DamagedWeights,
    StorageFailed,
    UnknownWeights,
    WeightsElsewhere,
    WeightStore,
)
from protos.federation.v1.operator_pb2 import CancelRunRequest
from tests.fakes import FakeClock
from tests.on_record import audit_log
from tests.signing import signed

LAYOUT = Layout.of({"w": (6,)})
UPDATE = Weights(LAYOUT, np.arange(6, dtype=np.float32))
DATA, OTHERS = UPDATE.to_bytes(), Weights(LAYOUT, np.ones(6, dtype=np.float32)).to_bytes()
BLOB = b"some weights"
SLOT = Slot("r", 1, "a")
HEAD = LedgerHead(5, "5" * 64)
OLGA = Identity("acme", Role.OPERATOR, "olga")
CANCEL = "/federation.v1.OperatorService/CancelRun"
SIGNED = signed("r", b"plan")


@pytest.fixture
def fence(engine):
    return Fence(engine)


@pytest.fixture
def journal(fence):
    """One run of one event."""
    journal = Journal(fence, SystemClock())
    journal.create_run("r", b"plan", "1" * 64, RunStarted(5.0))
    return journal


@pytest.fixture
def store(tmp_path, fence):
    return WeightStore(tmp_path / "weights", fence)


DURABLE = {
    "sqlite": {"PRAGMA journal_mode": "wal", "PRAGMA synchronous": 2},
    "postgresql": {"SHOW synchronous_commit": "on"},
}


def test_every_commit_is_kept(engine):
    with engine.connect() as connection:
        for question, answer in DURABLE[engine.dialect.name].items():
            assert connection.execute(text(question)).scalar() == answer


def test_the_journal_gives_back_what_was_recorded(engine, journal):
    journal.append("r", 1, [RunCancelled()])
    again = Journal(Fence(engine), SystemClock())
    (stored,) = again.runs()
    assert stored.events == (RunStarted(5.0), RunCancelled())
    assert (stored.run_id, stored.plan) == ("r", b"plan")
    assert again.run("r") == stored
    assert again.events("r", after=1) == (RunCancelled(),)
    assert again.run("s") is None


OLDER_WRITES = {
    "an event": lambda fence, _: Journal(fence, SystemClock()).append("r", 1, [RunCancelled()]),
    "a run": lambda fence, _: Journal(fence, SystemClock()).create_run(
        "s", b"plan", "1" * 64, RunStarted(5.0)
    ),
    "who ordered a run": lambda fence, _: Journal(fence, SystemClock()).sign_run("r", SIGNED),
    "weights": lambda _, store: store.put(DATA),
    "a ledger's head": lambda fence, _: LedgerHeads(fence, "acme", no_key).confirm("a", HEAD),
    "who asked for what two must": lambda fence, _: FourEyes(
        ["CancelRun"], within_s=3600, audit=audit_log(fence), fence=fence, clock=SystemClock()
    ).confirm(OLGA, CANCEL, CancelRunRequest(run_id="r")),
    "an audit record": lambda fence, _: audit_log(fence).record(process_started(1)),
    "a checkpoint": lambda fence, _: audit_log(fence).seal(),
    "a revocation": lambda fence, _: roster(fence).revoke(Member(Role.GATEWAY, "a"), by="ada"),
    "a certificate": lambda fence, _: note_certificate(fence),
}


def roster(fence: Fence) -> Roster:
    return Roster(fence, SystemClock(), Callers(SystemClock()), audit_log(fence))


def note_certificate(fence: Fence) -> None:
    now = SystemClock().wall()
    certificate = Certificate(Identity("acme", Role.GATEWAY, "a"), "1" * 64, now, now)
    with fence.writing() as connection:
        roster(fence).note(connection, certificate, Action.ENROL, "fed://acme/gateway/a")


def no_key():
    raise AssertionError("nothing may be signed")


@pytest.mark.parametrize("write", OLDER_WRITES.values(), ids=OLDER_WRITES.keys())
def test_an_older_writer_is_fenced_off(engine, fence, journal, store, write):
    newer = Fence(engine)
    with pytest.raises(Superseded, match="writer 2, this one is 1"):
        write(fence, store)
    (stored,) = Journal(newer, SystemClock()).runs()
    assert (stored.events, stored.signature) == ((RunStarted(5.0),), None)
    with pytest.raises(UnknownWeights):
        WeightStore(store._folder, newer).get(digest_of(DATA))
    head = LedgerHeads(newer, "acme", no_key).newest("a", insecure_deterministic=False)
    assert head is None
    with newer.reading() as connection:
        assert connection.execute(select(CONFIRMATIONS)).all() == []
    assert audit_log(newer).records(0) == audit_log(newer).checkpoints(0) == ()
    assert roster(newer).roll() == Roll((), (), ())


def test_of_the_lengths_of_many_blobs_only_some_stay_in_memory(store, monkeypatch):
    monkeypatch.setattr("orchestrator.weight_store.KEPT_LENGTHS", 3)
    digests = [store.put(bytes(length)) for length in range(8)]
    assert [store.byte_length(digest) for digest in digests] == list(range(8))
    assert len(store._lengths) <= 3


async def test_an_orchestrator_with_nothing_to_record_sees_that_another_took_over(tmp_path):
    clock, url = FakeClock(), f"sqlite:///{tmp_path / 'journal.db'}"
    older = Orchestrator(tmp_path, url, federation="acme", clock=clock, limits=Limits())
    older.start(restart_grace_s=5.0)
    newer = Orchestrator(tmp_path, url, federation="acme", clock=clock, limits=Limits())
    await asyncio.sleep(0)
    clock.advance(SUCCESSOR_CHECK_S)
    await asyncio.wait_for(older.runs.halted.wait(), 5.0)
    assert isinstance(older.runs.failure, Superseded)
    assert not newer.runs.halted.is_set()
    for each in (older, newer):
        await each.close()


def test_who_ordered_a_run_is_kept_and_stays(engine, journal):
    assert journal.run("r").signature is None  # as of before plans were signed
    journal.sign_run("r", SIGNED)
    journal.sign_run("r", replace(SIGNED, signature="9" * 128))
    journal.create_run("s", b"plan", "1" * 64, RunStarted(5.0), SIGNED)
    again = Journal(Fence(engine), SystemClock())
    assert [stored.signature for stored in again.runs()] == [SIGNED, SIGNED]


def test_a_journal_that_cannot_write_says_so_and_only_the_log_says_why(journal):
    with capture_logs() as logged, pytest.raises(JournalFailed) as caught:
        journal.append("r", 0, [RunCancelled()])
    assert str(caught.value) == (
        "the orchestrator's journal failed, its log says why: try again later"
    )
    (line,) = logged
    assert line["event"] == "journal_failed"
    assert "unique" in line["why"].lower()


def test_weights_are_named_by_their_digest_and_kept_once(store, tmp_path):
    assert store.put(BLOB) == store.put(BLOB) == digest_of(BLOB)
    assert store.get(digest_of(BLOB)) == BLOB
    assert store.read(digest_of(BLOB), 5, 100) == b"weights"
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [digest_of(BLOB)]


def test_weights_outlive_the_store(store, tmp_path, fence):
    digest = store.put(BLOB)
    (tmp_path / "weights" / "left.tmp").write_bytes(b"torn")
    assert WeightStore(tmp_path / "weights", fence).get(digest) == BLOB
    assert not (tmp_path / "weights" / "left.tmp").exists()


def test_a_folder_with_none_of_the_weights_is_the_wrong_one(store, tmp_path, fence):
    store.put(DATA)
    with pytest.raises(WeightsElsewhere, match=r"another has none of them: `shared` must be"):
        WeightStore(tmp_path / "another", fence)


def test_a_file_without_its_row_is_written_again(store, tmp_path):
    (tmp_path / "weights" / digest_of(BLOB)).write_bytes(b"torn")
    assert store.get(store.put(BLOB)) == BLOB


def test_damaged_weights_are_not_given_out(store, tmp_path):
    digest = store.put(BLOB)
    (tmp_path / "weights" / digest).write_bytes(b"other weights")
    with pytest.raises(DamagedWeights):
        store.get(digest)


def test_missing_weights_and_disks_are_told_apart(store, tmp_path):
    with pytest.raises(UnknownWeights):
        store.get("1" * 64)
    digest = store.put(BLOB)
    (tmp_path / "weights" / digest).unlink()
    for read in (store.get, lambda name: store.read(name, 0, 1)):
        with pytest.raises(StorageFailed):
            read(digest)
    (tmp_path / "weights").rmdir()
    with pytest.raises(StorageFailed):
        store.put(b"more")


def test_a_blob_that_is_not_kept_leaves_nothing(store, tmp_path):
    with store.writing() as blob:
        blob.write(BLOB)
    assert list((tmp_path / "weights").iterdir()) == []


def test_a_blob_that_is_read_in_pieces_is_checked_at_its_end(store, tmp_path):
    digest, room = store.put(BLOB), memoryview(bytearray(5))
    with store.reading(digest) as blob:
        assert b"".join(iter(lambda: bytes(blob.read_into(room)), b"")) == BLOB
        blob.check()
    (tmp_path / "weights" / digest).write_bytes(b"other weights"[: len(BLOB)])
    with store.reading(digest) as blob:
        while blob.read_into(room):
            pass
        with pytest.raises(DamagedWeights):
            blob.check()


def body(data: bytes, offset: int = 0) -> Body:
    return Body(digest_of(data), len(data), offset)


def receiving(staging: Staging, of: Body, slot: Slot = SLOT):
    return staging.receiving(slot, of, UpdateForm(LAYOUT), limit=1000)


def values_of(update) -> list[float]:
    return update.read(slice(0, 6)).tolist()


def test_a_folder_that_is_gone_says_so(tmp_path):
    staging = Staging(tmp_path / "uploads")
    (tmp_path / "uploads").rmdir()
    with receiving(staging, body(DATA)) as upload, pytest.raises(StorageFailed):
        upload.take(Chunk(0, DATA))


@pytest.mark.parametrize("cut", [1, 8, len(DATA) - 9, len(DATA) - 1])
def test_an_upload_is_resumed_where_it_was_torn_by_this_process_or_the_next(tmp_path, cut):
    with receiving(Staging(tmp_path), body(DATA)) as upload:
        upload.take(Chunk(0, DATA[:cut]))
    staging = Staging(tmp_path)
    assert staging.held(SLOT, digest_of(DATA)) == cut
    with receiving(staging, body(DATA, cut)) as upload:
        upload.take(Chunk(cut, DATA[cut:]))
        assert values_of(upload.checked()) == UPDATE.values.tolist()
        staging.let_go(upload)
    assert staging.held(SLOT, digest_of(DATA)) == 0


def test_uploads_that_come_side_by_side_do_not_meet(tmp_path):
    staging, other = Staging(tmp_path), replace(SLOT, gateway="b")
    with receiving(staging, body(DATA)) as first, receiving(staging, body(DATA), other) as second:
        for upload in (first, second):
            upload.take(Chunk(0, DATA[:40]))
        for upload in (second, first):
            upload.take(Chunk(40, DATA[40:]))
            assert values_of(upload.checked()) == UPDATE.values.tolist()
            staging.let_go(upload)
    with receiving(staging, body(DATA)) as third:  # in the spare file
        third.take(Chunk(0, DATA))
        assert values_of(third.checked()) == UPDATE.values.tolist()


def test_what_was_torn_is_checked_as_well(tmp_path):
    bad = Weights(LAYOUT, np.full(6, np.inf, dtype=np.float32)).to_bytes()
    with receiving(Staging(tmp_path), body(bad)) as upload:
        upload.take(Chunk(0, bad[:-4]))
    with receiving(Staging(tmp_path), body(bad, len(bad) - 4)) as upload:
        upload.take(Chunk(len(bad) - 4, bad[-4:]))
        with pytest.raises(NotFinite):
            upload.checked()


def test_bytes_that_changed_on_the_disk_are_found(tmp_path):
    with receiving(Staging(tmp_path), body(DATA)) as upload:
        upload.take(Chunk(0, DATA[:-4]))
    (file,) = tmp_path.iterdir()
    with file.open("r+b") as opened:
        opened.seek(BEGINNING + len(DATA) - 8)
        opened.write(b"x")
    with receiving(Staging(tmp_path), body(DATA, len(DATA) - 4)) as upload:
        upload.take(Chunk(len(DATA) - 4, DATA[-4:]))
        with pytest.raises(StagedBytesDamaged):
            upload.checked()


def test_an_empty_body_is_no_update(tmp_path):
    with (
        receiving(Staging(tmp_path), body(b"")) as upload,
        pytest.raises(MalformedWeights),
    ):
        upload.checked()


def test_a_slot_takes_one_upload_at_a_time(tmp_path):
    staging = Staging(tmp_path)
    with (
        receiving(staging, body(DATA)),
        pytest.raises(UploadInProgress),
        receiving(staging, body(DATA)),
    ):
        pass


def test_another_digest_takes_the_slots_place(tmp_path):
    staging = Staging(tmp_path)
    for data in (DATA, OTHERS):
        with receiving(staging, body(data)) as upload:
            upload.take(Chunk(0, data[:20]))
    assert staging.held(SLOT, digest_of(DATA)) == 0
    assert staging.held(SLOT, digest_of(OTHERS)) == 20


def test_a_file_is_used_again_and_nothing_of_what_it_held_counts(tmp_path):
    staging, later = Staging(tmp_path), Slot("r", 1, "b")
    with receiving(staging, body(DATA)) as upload:
        upload.take(Chunk(0, DATA))
        staging.let_go(upload)
    with receiving(staging, body(OTHERS), later) as upload:
        upload.take(Chunk(0, OTHERS[:-4]))
        assert len(list(tmp_path.iterdir())) == 1
        with pytest.raises(LengthMismatch):
            upload.checked()
    assert Staging(tmp_path).held(later, digest_of(OTHERS)) == len(OTHERS) - 4


def test_of_two_files_one_is_spared(tmp_path):
    staging, other = Staging(tmp_path), Slot("r", 1, "b")
    with receiving(staging, body(DATA)) as first, receiving(staging, body(OTHERS), other) as second:
        first.take(Chunk(0, DATA))
        second.take(Chunk(0, OTHERS))
        staging.let_go(first)
        staging.let_go(second)
    assert len(list(tmp_path.iterdir())) == 1
    staging.sweep([])
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_closed_rounds_is_deleted(tmp_path):
    staging, later = Staging(tmp_path), Slot("r", 11, "a")
    for slot in (SLOT, later):
        with receiving(staging, body(DATA), slot) as upload:
            upload.take(Chunk(0, DATA))
    with receiving(staging, body(DATA), Slot("r", 2, "a")):
        staging.sweep([SLOT])
    assert staging.held(SLOT, digest_of(DATA)) == len(DATA)
    assert staging.held(later, digest_of(DATA)) == 0
