"""The chain of the audit log, record by record."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from common.audit import (
    EMPTY,
    Action,
    Entry,
    Line,
    RecordBroken,
    check_chain,
    line_after,
)

ENTRY = Entry("fed://acme/operator/olga", Action.CANCEL_RUN, {"run": "r", "round": 3})


def log(count: int) -> list[Line]:
    lines: list[Line] = []
    for _ in range(count):
        head = lines[-1].head if lines else EMPTY
        lines.append(line_after(head, ENTRY, at="now", salt="5a" * 16))
    return lines


def test_a_record_says_what_was_put_on_it():
    record = log(2)[1].record
    assert (record.sequence, record.actor, record.action) == (2, ENTRY.actor, ENTRY.action)
    assert record.facts == ENTRY.facts
    assert record.previous == log(1)[0].hash


def test_the_hash_is_the_one_that_the_page_describes():
    first, second = log(2)
    link = hashlib.sha256(second.body).digest()
    whole = b"fedgate audit record 1\0" + bytes.fromhex(first.hash) + link
    assert second.hash == hashlib.sha256(whole).hexdigest()


def test_the_links_alone_lead_from_a_head_to_a_later_one():
    lines = log(5)
    place = lines[1].head
    for line in lines[2:]:
        place = place.after(line.link)
    assert place == lines[-1].head


def test_a_line_of_an_export_reads_back():
    line = log(3)[2]
    assert Line.from_text(line.to_text()) == line


@pytest.mark.parametrize(
    "spoilt", [b" ", b"{}", b"[]", b"null", b'{"record":1,"hash":""}', b"\xff"]
)
def test_a_line_that_is_none_is_refused(spoilt):
    with pytest.raises((ValueError, KeyError, TypeError)):
        Line.from_text(spoilt)


def test_a_line_in_another_form_is_refused_though_it_says_the_same():
    text = log(1)[0].to_text()
    with pytest.raises(ValueError, match="not as it was exported"):
        Line.from_text(text.replace(b'":"', b'": "', 1))


def test_a_record_chained_under_a_wrong_number_is_found():
    """Whoever chains anew can make every hash fit: the number still tells."""
    first, *_ = log(1)
    skipping = line_after(replace(first.head, sequence=7), ENTRY, at="now", salt="5a" * 16)
    with pytest.raises(RecordBroken, match=r"record 2 .*record 8 stands in its place"):
        check_chain([first, skipping])
