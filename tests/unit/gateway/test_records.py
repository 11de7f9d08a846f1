from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.records import (
    EMPTY,
    Head,
    Kind,
    Record,
    RecordBroken,
    after,
    canonical,
    check_chain,
    flattened,
    holds,
)

LENGTHS = st.integers(1, 12)


def chain(length: int, *, branch: str = "", head: Head = EMPTY) -> list[Record]:
    records = []
    for number in range(length):
        kind = Kind.REFUSED_PARENT if number % 4 == 3 else Kind.CHARGE
        facts = {"run": f"run{branch}", "round": number, "noise_multiplier": 0.1 + number / 3}
        records.append(after(head, kind, facts))
        head = records[-1].head
    return records


def merge(ours: list[Record], theirs: list[Record], orchestrator: Head | None = None) -> Record:
    known = {record.hash for record in ours}
    taken = [record.to_json() for record in theirs if record.hash not in known]
    facts = {
        "ours": ours[-1].head.to_facts(),
        "theirs": theirs[-1].head.to_facts() if theirs else None,
        "orchestrator": orchestrator.to_facts() if orchestrator else None,
        "taken": taken,
        "assumed": [],
    }
    return after(ours[-1].head, Kind.MERGE, facts)


def flipped(text: str, place: int) -> str:
    """Return `text` with one bit of one character changed."""
    place %= len(text)
    return text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]


@given(LENGTHS)
def test_a_whole_chain_ends_at_its_last_record(length):
    records = chain(length)
    assert check_chain(records) == records[-1].head == Head(length, records[-1].hash)


def test_an_empty_chain_is_whole():
    assert check_chain([]) == EMPTY


@given(LENGTHS, st.data())
def test_any_bit_changed_in_any_field_of_a_record_is_found_and_it_is_named(length, data):
    records = chain(length)
    bad = data.draw(st.integers(0, length - 1))
    field = data.draw(st.sampled_from(["kind", "facts", "previous", "hash", "sequence"]))
    value = getattr(records[bad], field)
    if field == "sequence":
        other = data.draw(st.integers(0, 2 * length).filter(lambda number: number != value))
    else:
        other = flipped(str(value), data.draw(st.integers(0, 10_000)))
    records[bad] = replace(records[bad], **{field: other})
    with pytest.raises(RecordBroken, match=f"record {bad + 1} is the first bad one") as caught:
        check_chain(records)
    assert caught.value.sequence == bad + 1


@given(st.integers(2, 12), st.data())
def test_a_record_left_out_is_found_and_named(length, data):
    records = chain(length)
    gone = data.draw(st.integers(0, length - 2))
    del records[gone]
    with pytest.raises(RecordBroken) as caught:
        check_chain(records)
    assert caught.value.sequence == gone + 1


@given(st.integers(2, 12), st.data())
def test_records_in_another_order_are_found_and_the_first_misplaced_one_is_named(length, data):
    records = chain(length)
    other = data.draw(st.permutations(records).filter(lambda each: each != records))
    first = next(
        n for n, pair in enumerate(zip(other, records, strict=True), 1) if pair[0] != pair[1]
    )
    with pytest.raises(RecordBroken) as caught:
        check_chain(other)
    assert caught.value.sequence == first


@given(st.integers(2, 12), st.data())
def test_a_tail_cut_off_leaves_a_chain_that_lacks_the_old_head(length, data):
    records = chain(length)
    shorter = records[: data.draw(st.integers(0, length - 1))]
    check_chain(shorter)
    assert not holds(shorter, records[-1].head)


@given(st.integers(2, 12), st.data())
def test_a_record_written_anew_with_its_hash_is_found_at_the_next(length, data):
    records = chain(length)
    bad = data.draw(st.integers(0, length - 2))
    before = records[bad - 1].head if bad else EMPTY
    records[bad] = after(before, Kind.CHARGE, {"run": "cheaper"})
    with pytest.raises(RecordBroken) as caught:
        check_chain(records)
    assert caught.value.sequence == bad + 2


@given(LENGTHS)
def test_a_chain_holds_each_of_its_own_heads_and_no_others(length):
    records, others = chain(length), chain(length, branch="-other")
    assert all(holds(records, record.head) for record in records)
    assert holds(records, EMPTY)
    assert not any(holds(records, other.head) for other in others)


@given(st.integers(1, 6), st.integers(0, 6), st.integers(1, 6))
def test_a_merge_follows_both_branches_and_holds_the_heads_of_both(shared, ours_more, theirs_more):
    common = chain(shared)
    ours = common + chain(ours_more, branch="-a", head=common[-1].head)
    theirs = common + chain(theirs_more, branch="-b", head=common[-1].head)
    merged = [*ours, merge(ours, theirs)]
    head = check_chain(merged)
    assert head.sequence == max(len(ours), len(theirs)) + 1
    assert all(holds(merged, record.head) for record in (*ours, *theirs))
    again = [*common, merge(common, merged)]
    assert all(holds(again, record.head) for record in (*ours, *theirs, *merged))
    assert not holds(merged, chain(3, branch="-c")[-1].head)


def test_a_merge_comes_after_the_countersigned_head_that_it_answers_for():
    ours, countersigned = chain(3), Head(40, "d" * 64)
    merged = [*ours, merge(ours, [], countersigned)]
    assert check_chain(merged).sequence == 41
    assert holds(merged, countersigned)
    assert not holds(merged, Head(39, "d" * 64))


def test_a_merge_that_is_changed_is_named():
    ours = chain(3)
    whole = merge(ours, [], Head(40, "d" * 64))
    lower = replace(whole, facts=whole.facts.replace('"sequence":40', '"sequence":4'))
    with pytest.raises(RecordBroken, match="record 41 is the first bad one"):
        check_chain([*ours, lower])
    forged = Record(9, Kind.MERGE, whole.facts, whole.previous, "")
    with pytest.raises(RecordBroken, match="calls itself record 9"):
        check_chain([*ours, replace(forged, hash=hash_of(forged))])


def hash_of(record: Record) -> str:
    """Written out once more: what any auditor can do with `sha256sum`."""
    parts = ["fedgate ledger record 1", str(record.sequence), record.kind, record.previous]
    return sha256("\0".join([*parts, record.facts]).encode()).hexdigest()


def test_the_hash_is_sha256_of_the_fields():
    for record in chain(5):
        assert record.hash == hash_of(record)


@given(st.floats(allow_nan=False, allow_infinity=False), st.text())
def test_a_record_is_the_same_after_an_export(number, text):
    record = after(EMPTY, Kind.CHARGE, {"text": text, "number": number})
    assert Record.from_json(record.to_json()) == record


def test_facts_have_one_text_whatever_their_order():
    assert (
        canonical({"b": 1.0, "a": "ä"})
        == canonical({"a": "ä", "b": 1.0})
        == '{"a":"\\u00e4","b":1.0}'
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical({"a": float("nan")})


def test_a_merge_is_followed_by_what_it_took():
    common = chain(2)
    theirs = common + chain(2, branch="-b", head=common[-1].head)
    merged = merge(common, theirs)
    assert list(flattened([*common, merged])) == [*common, merged, *theirs[2:]]
