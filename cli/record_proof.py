"""Whether an audit log is whole: its chain, its checkpoints, and what gateways saw of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common.audit import (
    EMPTY,
    Checkpoint,
    CheckpointBroken,
    Head,
    Line,
    RecordBroken,
    check_chain,
)
from common.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path


class FileBroken(RequestError):
    """A file of checkpoints, or an export's first line, is not as it was written."""

    def __init__(self, path: Path, line: int, need: str) -> None:
        super().__init__(
            f"line {line} of {path} is not {need} as it was written: write the file again with "
            "`fedgate audit export` or `fedgate-gateway audit export`"
        )


class AnotherKey(RequestError):
    """A checkpoint is signed by another key than the log's."""

    def __init__(self, whose: str, *, got: str, need: str) -> None:
        super().__init__(f"{whose} is signed by {got}, expected is {need}: compare with its owner")


class TwoStories(RequestError):
    """A gateway was shown another log than this one."""

    def __init__(self, whose: str, head: Head) -> None:
        super().__init__(
            f"{whose} holds record {head.sequence} ({head.hash[:12]}), which is not in this log: "
            "the orchestrator has told two stories, or its database was changed or put back"
        )
        self.sequence = head.sequence


@dataclass(frozen=True)
class Proof:
    """A log that was found whole."""

    head: Head
    signed: Head  # the last record that a checkpoint covers
    public_key: str
    checkpoints: int
    gateways: int  # checkpoints that gateways hold and that are borne out


@dataclass(frozen=True)
class Witness:
    """A checkpoint, and whose it is."""

    checkpoint: Checkpoint
    whose: str = ""  # a gateway's file; empty: the orchestrator's own

    @property
    def name(self) -> str:
        """How it is called."""
        name = f"the checkpoint of record {self.checkpoint.sequence}"
        return f"{self.whose}: {name}" if self.whose else name


@dataclass
class Check:
    """Sees the records of a log in order, then says whether the checkpoints bear them out."""

    witnesses: tuple[Witness, ...]
    key: str = ""  # who must have signed; empty: whoever signed the first
    head: Head = EMPTY
    _hashes: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Know which records' hashes will be asked for."""
        self._hashes = {each.checkpoint.sequence: "" for each in self.witnesses}

    def see(self, line: Line) -> None:
        """Look at the record that comes next; raise RecordBroken if it does not follow."""
        self.head = check_chain((line,), self.head)
        if self.head.sequence in self._hashes:
            self._hashes[self.head.sequence] = self.head.hash

    def finish(self) -> Proof:
        """Return what was proven.

        Raises:
            RecordBroken: records are missing at the end, which a checkpoint covers.
            CheckpointBroken, AnotherKey: a checkpoint is not what was signed.
            TwoStories: a gateway's checkpoint is not borne out.
        """
        key = self.key or (self.witnesses[0].checkpoint.public_key if self.witnesses else "")
        for each in self.witnesses:
            self._check(each, key)
        own = [each.checkpoint for each in self.witnesses if not each.whose]
        signed = max((each.head for each in own), key=lambda head: head.sequence, default=EMPTY)
        return Proof(self.head, signed, key, len(own), len(self.witnesses) - len(own))

    def _check(self, witness: Witness, key: str) -> None:
        checkpoint = witness.checkpoint
        if not checkpoint.is_genuine():
            raise CheckpointBroken(checkpoint.sequence, "it was changed after it was signed")
        if checkpoint.public_key != key:
            raise AnotherKey(witness.name, got=checkpoint.public_key, need=key)
        if checkpoint.sequence > self.head.sequence:
            problem = f"it is missing, and {witness.name} was signed"
            raise RecordBroken(self.head.sequence + 1, problem)
        if self._hashes[checkpoint.sequence] != checkpoint.hash:
            if witness.whose:
                raise TwoStories(witness.whose, checkpoint.head)
            raise CheckpointBroken(checkpoint.sequence, "the log holds another record there")


def lines_of(data: bytes) -> Iterator[bytes]:
    """Yield the lines of a file; one that its end cuts off keeps a mark of that."""
    whole = data.split(b"\n")
    yield from whole[:-1]
    if whole[-1]:
        yield whole[-1] + b"\n(cut off)"


def read_export(path: Path) -> tuple[Checkpoint, Iterator[Line]]:
    """Return an export's checkpoint and its records, which are read as they are asked for.

    Raises:
        FileBroken: there is no checkpoint in its first line.
        RecordBroken: from the iterator, at the first line that is no record.
    """
    lines = lines_of(_read(path))
    try:
        checkpoint = Checkpoint.from_text(next(lines, b""))
    except (ValueError, KeyError, TypeError) as error:
        raise FileBroken(path, 1, "a checkpoint") from error
    return checkpoint, _records(lines)


def read_heads(path: Path) -> tuple[Witness, ...]:
    """Return the checkpoints that a gateway has exported; raise FileBroken."""
    found: list[Witness] = []
    for number, text in enumerate(lines_of(_read(path)), 1):
        try:
            found.append(Witness(Checkpoint.from_text(text), str(path)))
        except (ValueError, KeyError, TypeError) as error:
            raise FileBroken(path, number, "a checkpoint") from error
    return tuple(found)


def _records(lines: Iterable[bytes]) -> Iterator[Line]:
    for number, text in enumerate(lines, 1):
        try:
            yield Line.from_text(text)
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise RecordBroken(number, "its line is not as it was written") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileBroken(path, 1, "a checkpoint") from error
