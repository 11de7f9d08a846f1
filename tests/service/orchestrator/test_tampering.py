"""Must show: whatever is changed in the audit log or a lineage is found, and named."""
# ruff: noqa: S311, S608, TID251 - each try comes from its seed

from __future__ import annotations

import sqlite3
from random import Random

import pytest

from cli.evidence import Evidence
from cli.model_proof import Story, check_complete
from cli.record_proof import AnotherKey, Check, FileBroken, Proof, TwoStories, Witness, read_export
from common.audit import (
    Action,
    CheckpointBroken,
    Entry,
    Head,
    RecordBroken,
    line_after,
    sign,
)
from common.ids import WeightsId
from common.lineage import LineageBroken, check_lineage, lineage_from
from orchestrator.database import open_database
from orchestrator.fencing import Fence
from orchestrator.lineage_store import LineageStore
from tests.on_record import KEY, PUBLIC_KEY, audit_log, key
from tests.published import published_rounds
from tests.tampering import tampered

TRIES = 1000
COUNT = 12
COUNT_OF_ROUNDS = 5
OF_A_CHECKPOINT = (FileBroken, CheckpointBroken, AnotherKey)
ENTRY = Entry("fed://acme/operator/olga", Action.START_RUN, {"run": "r", "plan": "ab" * 32})


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'journal.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def log(engine):
    """Some records, and a checkpoint of all of them."""
    log = audit_log(Fence(engine))
    log.record(*[ENTRY] * COUNT)
    log.seal()
    return log


@pytest.fixture
def rows(tmp_path, log):
    """The database as whoever tampers with it sees it."""
    connection = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    connection.execute("pragma synchronous = off")
    yield connection
    connection.close()


def first_bad(log, *heads: Witness) -> int:
    """Return the number of the record that `fedgate audit verify` names."""
    with pytest.raises(RecordBroken) as caught:
        prove(log, *heads)
    return caught.value.sequence


def prove(log, *heads: Witness) -> Proof:
    check = Check((*map(Witness, log.checkpoints(0)), *heads), PUBLIC_KEY)
    for line in log.records(0):
        check.see(line)
    return check.finish()


def change(rows, random: Random) -> int:
    """Change the table of records in one way; return which record is then the first bad one."""
    place = random.randrange(1, COUNT + 1)
    match random.choice(["body", "hash", "sequence", "drop", "swap", "cut"]):
        case "body":
            (body,) = rows.execute("select body from audit_records where sequence = ?", [place])
            flipped = bytearray(body[0])
            flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
            rows.execute(
                "update audit_records set body = ? where sequence = ?", [bytes(flipped), place]
            )
        case "hash":
            (value,) = rows.execute("select hash from audit_records where sequence = ?", [place])
            at = random.randrange(64)
            other = random.choice([c for c in "0123456789abcdefABCDEF" if c != value[0][at]])
            rows.execute(
                "update audit_records set hash = ? where sequence = ?",
                [value[0][:at] + other + value[0][at + 1 :], place],
            )
        case "sequence":
            elsewhere = random.choice([0, -place, COUNT + random.randrange(1, 1 << 30)])
            rows.execute(
                "update audit_records set sequence = ? where sequence = ?", [elsewhere, place]
            )
        case "drop":
            rows.execute("delete from audit_records where sequence = ?", [place])
        case "swap":
            other = random.choice([n for n in range(1, COUNT + 1) if n != place])
            for old, new in ((place, -1), (other, place), (-1, other)):
                rows.execute("update audit_records set sequence = ? where sequence = ?", [new, old])
            return min(place, other)
        case "cut":
            rows.execute("delete from audit_records where sequence >= ?", [place])
    return place


def test_whatever_is_changed_in_the_rows_is_found_and_the_record_named(log, rows):
    kept = rows.execute("select * from audit_records").fetchall()
    for seed in range(TRIES):
        expected = change(rows, Random(seed))
        assert first_bad(log) == expected, f"seed {seed}"
        rows.execute("begin")
        rows.execute("delete from audit_records")
        rows.executemany("insert into audit_records values (?, ?, ?)", kept)
        rows.execute("commit")


def test_the_log_as_it_was_written_is_whole(log):
    proof = prove(log)
    assert (proof.head.sequence, proof.signed) == (COUNT, proof.head)


def test_whatever_is_changed_in_an_export_is_found_and_the_record_named(log, tmp_path):
    path = tmp_path / "export.jsonl"
    (checkpoint,) = log.checkpoints(0)
    lines = [checkpoint.to_text(), *(line.to_text() for line in log.records(0))]
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(data)
    assert verified(path).sequence == COUNT
    for seed in range(TRIES):
        changed, line = tampered(data, Random(seed))
        path.write_bytes(changed)
        expected = OF_A_CHECKPOINT if line == 1 else RecordBroken
        with pytest.raises(expected) as caught:
            verified(path)
        if line > 1:
            assert caught.value.sequence == line - 1, f"seed {seed}"


def verified(path) -> Head:
    checkpoint, lines = read_export(path)
    check = Check((Witness(checkpoint),), PUBLIC_KEY)
    for line in lines:
        check.see(line)
    return check.finish().head


def test_a_tail_that_is_cut_with_its_checkpoints_shows_by_a_gateways_head(log, rows):
    (head,) = log.checkpoints(0)
    rows.execute("delete from audit_records where sequence > 9")
    rows.execute("delete from audit_checkpoints")
    assert first_bad(log, Witness(head, "north.jsonl")) == 10


def rewritten(log, rows, place: int) -> None:
    """Change a record, and chain every later one anew, as whoever has no key can."""
    lines = log.records(0)
    head = lines[place - 2].head if place > 1 else Head(0, "0" * 64)
    for line in lines[place - 1 :]:
        changed = line_after(head, ENTRY, at="another day", salt="0" * 32)
        rows.execute(
            "update audit_records set body = ?, hash = ? where sequence = ?",
            [changed.body, changed.hash, line.sequence],
        )
        head = changed.head


def test_a_log_that_was_chained_anew_is_not_what_a_checkpoint_signed(log, rows):
    rewritten(log, rows, 5)
    with pytest.raises(CheckpointBroken, match=r"record 12 .*the log holds another record there"):
        prove(log)


def test_two_stories_told_to_two_gateways_show(log, rows):
    """The orchestrator has the key, so that its own checkpoints fit; a gateway's does not."""
    (first_told,) = log.checkpoints(0)
    rewritten(log, rows, 5)
    rows.execute("delete from audit_checkpoints")
    told_later = log.seal() or pytest.fail("nothing to seal")
    with pytest.raises(TwoStories, match=r"north\.jsonl holds record 12 .*told two stories"):
        prove(log, Witness(told_later, "south.jsonl"), Witness(first_told, "north.jsonl"))


def test_a_checkpoint_that_its_key_did_not_sign_is_named(log):
    (genuine,) = log.checkpoints(0)
    forged = sign(KEY, "acme", Head(3, "3" * 64), "today")
    forged = type(forged)(**{**vars(forged), "signature": genuine.signature})
    with pytest.raises(CheckpointBroken, match=r"record 3 .*changed after it was signed"):
        prove(log, Witness(forged))


@pytest.fixture
def lineage(engine):
    """A run of five rounds and its model."""
    return published_rounds(Fence(engine), COUNT_OF_ROUNDS)


def broken(signed, origin) -> str:
    """Return what `fedgate model verify` names in the lineage of a completed run."""
    evidence = Evidence(origin.federation, origin.run, b"", None, signed)
    story = Story(evidence, COUNT_OF_ROUNDS, WeightsId("f" * 64))
    with pytest.raises(LineageBroken) as caught:
        check_complete(check_lineage(signed, origin, PUBLIC_KEY), story)
    return caught.value.what


def name_of(place: int) -> str:
    return (
        f"the statement of round {place}"
        if place <= COUNT_OF_ROUNDS
        else "the statement of the model"
    )


def test_whatever_is_changed_in_a_lineages_file_is_found_and_the_statement_named(lineage):
    origin, signed = lineage
    data = b"".join(each.to_text() + b"\n" for each in signed)
    assert check_lineage(lineage_from(data), origin, PUBLIC_KEY).model is not None
    for seed in range(TRIES):
        changed, line = tampered(data, Random(seed))
        try:
            what = broken(lineage_from(changed), origin)
        except LineageBroken as error:
            what = error.what
        assert what in {name_of(line), f"the statement in line {line}"}, f"seed {seed}"


def change_lineage(rows, random: Random, count: int) -> int:
    """Change the table of statements in one way; return which is then the first bad one."""
    place = random.randrange(1, count + 1)
    match random.choice(["body", "public_key", "signature", "drop", "swap", "cut"]):
        case "drop":
            rows.execute("delete from lineage where sequence = ?", [place])
        case "cut":
            rows.execute("delete from lineage where sequence >= ?", [place])
        case "swap":
            other = random.choice([n for n in range(1, count + 1) if n != place])
            for old, new in ((place, -1), (other, place), (-1, other)):
                rows.execute("update lineage set sequence = ? where sequence = ?", [new, old])
            return min(place, other)
        case column:
            where = f"from lineage where sequence = {place}"
            ((value,),) = rows.execute(f"select {column} {where}")
            update = f"update lineage set {column} = ? where sequence = {place}"
            rows.execute(update, [flipped(value, random)])
    return place


def test_whatever_is_changed_in_a_lineages_rows_is_found_and_the_statement_named(
    lineage, engine, rows
):
    origin, signed = lineage
    store = LineageStore(Fence(engine), "acme", key)
    kept = rows.execute("select * from lineage").fetchall()
    for seed in range(TRIES):
        place = change_lineage(rows, Random(seed), len(signed))
        assert broken(tuple(store.statements(origin.run)), origin) == name_of(place), f"seed {seed}"
        rows.execute("begin")
        rows.execute("delete from lineage")
        rows.executemany("insert into lineage values (?, ?, ?, ?, ?)", kept)
        rows.execute("commit")


def flipped(value: bytes | str, random: Random) -> bytes | str:
    if isinstance(value, str):
        at = random.randrange(len(value))
        other = random.choice([c for c in "0123456789abcdef" if c != value[at]])
        return value[:at] + other + value[at + 1 :]
    changed = bytearray(value)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)
