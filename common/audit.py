r"""The orchestrator's audit log: records in a chain, checkpoints signed over it.

The hash of record n covers it and all before it:

.. math:: h_n = \mathrm{SHA256}(D \,\Vert\, h_{n-1} \,\Vert\, \mathrm{SHA256}(b_n))

with D the domain and b_n the record's bytes, canonical JSON. The inner digests alone, its links,
lead from one hash to a later one, so that a gateway can check that the log only grew without
reading it; each record holds 128 random bits, so that a link says nothing of what it stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import StringConstraints, TypeAdapter, ValidationError

from common.errors import RequestError
from common.protocol import PublicKey, SequenceNumber, Sha256, Signature
from common.statements import canonical, is_genuine, parsed, signed_by

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from common.protocol import UpdateHeader

DOMAIN = b"fedgate audit record 1\0"
CHECKPOINT_DOMAIN = b"fedgate audit checkpoint 1\0"
GENESIS = "0" * 64  # stands where the hash of the record before the first would
ORCHESTRATOR = "orchestrator"  # who acted, where nobody asked for it
LINK_BYTES = 32
LONGEST_FACT = 200  # characters: some are a caller's own words

Text: TypeAlias = Annotated[str, StringConstraints(max_length=LONGEST_FACT)]
Facts: TypeAlias = Mapping[str, str | int]


class Action(StrEnum):
    """What was done, or was refused."""

    START_PROCESS = "start_process"
    CALL = "call"  # of a caller who may not; others are named by what they do
    UPLOAD_WEIGHTS = "upload_weights"
    START_RUN = "start_run"
    CANCEL_RUN = "cancel_run"
    RECORD_SCORES = "record_scores"
    ANSWER_PLAN = "answer_plan"
    OPEN_ROUND = "open_round"
    SUBMIT_UPDATE = "submit_update"  # on record where it was refused, or came in quarantine
    RELEASE_GATEWAY = "release_gateway"
    PUBLISH_ROUND = "publish_round"
    ABANDON_ROUND = "abandon_round"
    END_RUN = "end_run"
    CREATE_TOKEN = "create_token"  # noqa: S105 - no password
    CERTIFY = "certify"
    ENROL = "enrol"
    RENEW = "renew"
    REVOKE = "revoke"
    ASK = "ask"  # for what two people must ask for
    CONFIRM = "confirm"  # as the second person


class Outcome(StrEnum):
    """What came of it."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    SET_ASIDE = "set_aside"  # of an update that came in quarantine


class RecordBroken(RequestError):
    """A record of the audit log is not the one that was written."""

    def __init__(self, sequence: int, problem: str) -> None:
        super().__init__(f"record {sequence} of the audit log is the first bad one: {problem}")
        self.sequence = sequence


class CheckpointBroken(RequestError):
    """A checkpoint is not what was signed, or the log does not hold what it stands for."""

    def __init__(self, sequence: int, problem: str) -> None:
        super().__init__(f"the checkpoint of record {sequence} of the audit log: {problem}")
        self.sequence = sequence


@dataclass(frozen=True)
class Entry:
    """What is to go on record: identities, names, digests and counts, never data."""

    actor: str  # the identity's URI, or ORCHESTRATOR
    action: Action
    facts: Facts
    outcome: Outcome = Outcome.DONE


def update_facts(header: UpdateHeader) -> Facts:
    """Return what goes on record of an update: which it is, nothing of what is in it."""
    return {"run": header.key.run_id, "round": header.key.round, "update": header.body.digest}


@dataclass(frozen=True)
class Head:
    """A place in the chain: a record's number and its hash, which covers all before it."""

    sequence: int
    hash: str

    def after(self, link: bytes) -> Self:
        """Return the place after the record whose link it is."""
        whole = DOMAIN + bytes.fromhex(self.hash) + link
        return type(self)(self.sequence + 1, hashlib.sha256(whole).hexdigest())


EMPTY = Head(0, GENESIS)


@dataclass(frozen=True)
class Record:
    """What a record says."""

    sequence: SequenceNumber  # from 1, without a gap
    at: Text  # UTC, for display
    actor: Text
    action: Action
    facts: dict[str, Text | int]
    outcome: Outcome
    previous: Sha256  # hash of the record before
    salt: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

    def to_bytes(self) -> bytes:
        """Return the bytes that the chain covers."""
        return canonical(vars(self))


_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class Line:
    """A record as it is stored and exported: its place, its bytes, the hash it was written with."""

    sequence: int
    body: bytes
    hash: str

    @property
    def link(self) -> bytes:
        """What the chain takes from it."""
        return hashlib.sha256(self.body).digest()

    @property
    def head(self) -> Head:
        """The place that it claims."""
        return Head(self.sequence, self.hash)

    @property
    def record(self) -> Record:
        """What it says; raise ValueError unless its bytes are a record's, as it is written."""
        record = _RECORD.validate_json(self.body)
        if record.to_bytes() != self.body:
            msg = "these are not a record's bytes"
            raise ValueError(msg)
        return record

    def to_text(self) -> bytes:
        """Return it as a line of an export, without the line's end."""
        return canonical({"record": parsed(self.body), "hash": self.hash})

    @classmethod
    def from_text(cls, text: bytes) -> Self:
        """Return the line that `to_text` was asked for; raise ValueError, KeyError, TypeError."""
        fields = parsed(text)
        body = canonical(fields["record"])
        line = cls(_RECORD.validate_json(body).sequence, body, fields["hash"])
        if line.to_text() != text:
            msg = "this line is not as it was exported"
            raise ValueError(msg)
        return line


def line_after(head: Head, entry: Entry, *, at: str, salt: str) -> Line:
    """Return the line that comes after `head`; of a caller's words only so many are kept."""
    facts = {
        name: fact if isinstance(fact, int) else fact[:LONGEST_FACT]
        for name, fact in entry.facts.items()
    }
    record = Record(
        sequence=head.sequence + 1,
        at=at,
        actor=entry.actor[:LONGEST_FACT],
        action=entry.action,
        facts=facts,
        outcome=entry.outcome,
        previous=head.hash,
        salt=salt,
    )
    body = record.to_bytes()
    following = head.after(hashlib.sha256(body).digest())
    return Line(record.sequence, body, following.hash)


def check_chain(lines: Iterable[Line], head: Head = EMPTY) -> Head:
    """Return the head of a chain that follows `head`, each line after the one before it.

    Raises:
        RecordBroken: one does not; its place is named, and everything before it is whole.
    """
    for line in lines:
        _check(line, head)
        head = line.head
    return head


def _check(line: Line, head: Head) -> None:
    following = head.after(line.link)
    try:
        record = line.record
    except ValueError as error:
        raise RecordBroken(following.sequence, "it is not a record any more") from error
    if record.sequence != following.sequence:
        found = f"record {record.sequence} stands in its place"
        raise RecordBroken(following.sequence, found)
    if line.sequence != record.sequence:
        found = f"it is stored as record {line.sequence}"
        raise RecordBroken(following.sequence, found)
    if line.hash != following.hash or record.previous != head.hash:
        raise RecordBroken(following.sequence, "it, or its hash, was changed after it was written")


@dataclass(frozen=True)
class Checkpoint:
    """The orchestrator's word that its log ends, or once ended, with this record."""

    federation: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    sequence: SequenceNumber
    hash: Sha256
    at: Text  # UTC, for display
    public_key: PublicKey  # Ed25519, hexadecimal
    signature: Signature

    @property
    def head(self) -> Head:
        """The place that it signs."""
        return Head(self.sequence, self.hash)

    def is_genuine(self) -> bool:
        """Whether the key that it names has signed it."""
        said = _said(self.federation, self.head, self.at)
        return is_genuine(self.public_key, self.signature, said)

    def to_text(self) -> bytes:
        """Return it as a line of a file, without the line's end."""
        return canonical({"checkpoint": vars(self)})

    @classmethod
    def from_text(cls, text: bytes) -> Self:
        """Return the checkpoint that `to_text` was asked for; raise ValueError, KeyError."""
        fields: Any = parsed(text)
        checkpoint = checkpoint_of(fields["checkpoint"])
        if checkpoint.to_text() != text:
            msg = "this line is not as it was written"
            raise ValueError(msg)
        return cls(**vars(checkpoint))


@dataclass(frozen=True)
class Sealed:
    """A checkpoint, and the links that lead to it from a record that was asked for."""

    checkpoint: Checkpoint
    links: bytes  # LINK_BYTES each; as many as fit into one answer


_CHECKPOINT = TypeAdapter(Checkpoint)


def checkpoint_of(fields: Any) -> Checkpoint:
    """Return the checkpoint made of `fields`; raise ValueError if they are none."""
    try:
        return _CHECKPOINT.validate_python(fields)
    except ValidationError as error:
        msg = "this is not a checkpoint"
        raise ValueError(msg) from error


def sign(key: Ed25519PrivateKey, federation: str, head: Head, at: str) -> Checkpoint:
    """Return the word of `key`'s owner that the log ends with `head`."""
    public_key, signature = signed_by(key, _said(federation, head, at))
    return Checkpoint(federation, head.sequence, head.hash, at, public_key, signature)


def _said(federation: str, head: Head, at: str) -> bytes:
    said = {"federation": federation, "at": at, **vars(head)}
    return CHECKPOINT_DOMAIN + canonical(said)
