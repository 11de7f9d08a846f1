"""The chain of the ledger's records: each names the hash of the one before it.

A record holds facts as canonical JSON and nothing that changes afterwards: no state, no secret, no
time. Its hash is SHA-256, which any auditor's tools have; the number of records makes speed no
matter. The last record's sequence number and hash, the head, stand for the whole ledger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self, TypeAlias

from common import statements
from gateway.charges import LedgerUnreadable

DOMAIN = "fedgate ledger record 1"
GENESIS = "0" * 64  # stands where the hash of the record before the first would

Facts: TypeAlias = Mapping[str, Any]  # what JSON can hold


class Kind(StrEnum):
    """What a record says."""

    CHARGE = "charge"  # a round was paid for
    REFUSED_PARENT = "refused_parent"  # a second parent was offered for a charged round
    MERGE = "merge"  # another image of the ledger, or missing charges, were taken in


@dataclass(frozen=True)
class Head:
    """A place in a chain: a record's number and its hash, which covers all before it."""

    sequence: int
    hash: str

    def to_facts(self) -> Facts:
        """Return the head as a record of a merge names it."""
        return {"sequence": self.sequence, "hash": self.hash}

    @classmethod
    def from_facts(cls, facts: Facts | None) -> Self | None:
        """Return the head that `to_facts` was asked for; None where none is named."""
        return None if facts is None else cls(int(facts["sequence"]), str(facts["hash"]))


EMPTY = Head(0, GENESIS)


@dataclass(frozen=True)
class Record:
    """One record, with the hash that it was written with."""

    sequence: int
    kind: str
    facts: str  # canonical JSON
    previous: str
    hash: str

    @property
    def head(self) -> Head:
        """The place of this record."""
        return Head(self.sequence, self.hash)

    @property
    def content(self) -> dict[str, Any]:
        """The facts, read."""
        found: dict[str, Any] = json.loads(self.facts)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the record as an export and a merge hold it."""
        return {
            "sequence": self.sequence,
            "kind": str(self.kind),
            "facts": self.content,
            "previous": self.previous,
            "hash": self.hash,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Return the record that `to_json` was asked for; raise KeyError, TypeError, ValueError."""
        return cls(
            int(fields["sequence"]),
            str(fields["kind"]),
            canonical(fields["facts"]),
            str(fields["previous"]),
            str(fields["hash"]),
        )


class RecordBroken(LedgerUnreadable):
    """A record is not the one that was written."""

    def __init__(self, sequence: int, problem: str) -> None:
        super().__init__(f"record {sequence} is the first bad one: {problem}")
        self.sequence = sequence


def canonical(facts: Facts) -> str:
    """Return the one text of `facts`, as `common.statements` has it."""
    return statements.canonical(facts).decode()


def after(head: Head, kind: Kind, facts: Facts) -> Record:
    """Return the record that comes after `head`."""
    text, sequence = canonical(facts), _sequence_after(head, kind, facts)
    return Record(sequence, kind, text, head.hash, _hash(sequence, kind, text, head.hash))


def check_chain(records: Iterable[Record]) -> Head:
    """Return the head of a chain, each record of which follows the one before it.

    Raises:
        RecordBroken: one does not; it is named, and everything before it is whole.
    """
    head = EMPTY
    for record in records:
        _check(record, head)
        head = record.head
    return head


def flattened(records: Iterable[Record]) -> Iterator[Record]:
    """Yield `records`, and after each merge those that it took from another image."""
    for record in records:
        yield record
        if record.kind == Kind.MERGE:
            yield from flattened(map(Record.from_json, record.content["taken"]))


def holds(records: Iterable[Record], head: Head) -> bool:
    """Whether everything that `head` stands for is in the chain, or was answered for in a merge."""
    if head == EMPTY:
        return True
    return any(
        record.head == head or (record.kind == Kind.MERGE and head in answered_for(record))
        for record in flattened(records)
    )


def answered_for(merge: Record) -> tuple[Head | None, ...]:
    """Return the heads that a merge names: all that they stand for is in it or stated by it."""
    content = merge.content
    return tuple(Head.from_facts(content[name]) for name in ("ours", "theirs", "orchestrator"))


def _check(record: Record, head: Head) -> None:
    number = head.sequence + 1
    if record.hash != _hash(record.sequence, record.kind, record.facts, record.previous):
        number = max(number, record.sequence) if record.kind == Kind.MERGE else number
        raise RecordBroken(number, "what it says was changed after it was written")
    if record.previous != head.hash:
        found = f"record {record.sequence} stands in its place, which follows another"
        raise RecordBroken(number, found)
    if record.sequence != _sequence_after(head, record.kind, record.content):
        raise RecordBroken(number, f"it calls itself record {record.sequence}")


def _sequence_after(head: Head, kind: str, facts: Facts) -> int:
    """Return the number after `head`; a merge also comes after all that it answers for."""
    heads = [head]
    if kind == Kind.MERGE:
        named = (Head.from_facts(facts[name]) for name in ("ours", "theirs", "orchestrator"))
        heads += [each for each in named if each is not None]
    return max(each.sequence for each in heads) + 1


def _hash(sequence: int, kind: str, facts: str, previous: str) -> str:
    whole = "\0".join((DOMAIN, str(sequence), kind, previous, facts))
    return hashlib.sha256(whole.encode()).hexdigest()
