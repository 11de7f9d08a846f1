"""Sentences with IOB2 tags, and reading them from JSON lines and from CoNLL columns."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.ner.errors import BrokenLine, DataFileMissing, DataUnreadable, UnknownFormat
from tasks.ner.tags import OUTSIDE, first_illegal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

Split = Literal["train", "dev", "test"]
Lines: TypeAlias = "Iterable[tuple[int, str | BrokenLine]]"
Key = Annotated[str, Field(min_length=1)]  # names a document or a person


@dataclass(frozen=True, slots=True)
class Sentence:
    """One tagged sentence, and where it comes from."""

    tokens: tuple[str, ...]
    tags: tuple[str, ...]  # IOB2, one a token
    site: str | None = None  # None: the file does not say
    split: Split | None = None
    document: str | None = None  # which one the sentence stands in; None: the file does not say
    persons: tuple[str, ...] = ()  # whose it is, each once; none: the file does not say
    line: int = 0  # where the sentence begins in its file, from 1

    def content_digest(self) -> bytes:
        """Return 32 bytes that name the words and the tags, and nothing else."""
        return blake3(json.dumps([self.tokens, self.tags]).encode()).digest()


class _Row(BaseModel):
    """One JSON line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    text: str
    tags: str
    site: str | None = None
    split: Split | None = None
    document: Key | None = None
    person: Key | Annotated[tuple[Key, ...], Field(min_length=1)] | None = None  # or several

    @property
    def persons(self) -> tuple[str, ...]:
        """Those whose the sentence is, each once."""
        named = (self.person,) if isinstance(self.person, str) else self.person or ()
        return tuple(dict.fromkeys(named))


def read_file(path: Path) -> tuple[Sentence, ...]:
    """Read every sentence of a .jsonl or .conll file, in order; check every line.

    Raises:
        DataFileMissing, DataUnreadable: there is no such file, or none that can be read.
        UnknownFormat: its name ends in something else.
        BrokenLine: a line cannot be read; names the first one.
    """
    return tuple(map(whole, read_rows(path)))


def whole(row: Sentence | BrokenLine) -> Sentence:
    """Return a sentence; raise what is wrong with a line that is none."""
    if isinstance(row, BrokenLine):
        raise row
    return row


def read_rows(path: Path) -> Iterator[Sentence | BrokenLine]:
    """Yield every sentence of a .jsonl or .conll file and, in its place, what cannot be read.

    Raises:
        DataFileMissing, DataUnreadable: there is no such file, or none that can be read.
        UnknownFormat: its name ends in something else.
    """
    if path.suffix not in _READERS:
        raise UnknownFormat(path)
    if not path.is_file():
        raise DataFileMissing(path)
    return _READERS[path.suffix](path, _lines(path))


def _lines(path: Path) -> Iterator[tuple[int, str | BrokenLine]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataUnreadable(path, error.strerror or str(error)) from error
    for number, raw in enumerate(data.split(b"\n"), start=1):
        try:
            yield number, raw.decode().rstrip("\r")
        except UnicodeDecodeError as error:
            yield number, BrokenLine(path, number, f"byte {error.start} is not UTF-8")


def _read_jsonl(path: Path, lines: Lines) -> Iterator[Sentence | BrokenLine]:
    for number, line in lines:
        if isinstance(line, BrokenLine):
            yield line
        elif line.strip():
            try:
                yield _from_row(path, number, _parse_row(path, number, line))
            except BrokenLine as broken:
                yield broken


def _parse_row(path: Path, number: int, line: str) -> _Row:
    try:
        return _Row.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the line"
        reason = "is not JSON" if first["type"] == "json_invalid" else first["msg"].lower()
        raise BrokenLine(path, number, f"{where}: {reason}") from None


def _from_row(path: Path, number: int, row: _Row) -> Sentence:
    tokens, tags = tuple(row.text.split(" ")), tuple(row.tags.split(" "))
    reason = _fault(tokens, tags)
    if reason is not None:
        raise BrokenLine(path, number, reason)
    return Sentence(tokens, tags, row.site, row.split, row.document, row.persons, number)


def _fault(tokens: tuple[str, ...], tags: tuple[str, ...]) -> str | None:
    if len(tokens) != len(tags):
        return f"{len(tokens)} tokens and {len(tags)} tags; need one tag a token"
    if not all(tokens):
        return f"token {tokens.index('') + 1} is empty; tokens are joined by one space"
    for place, tag in enumerate(tags, start=1):
        if tag != OUTSIDE and not (tag[:2] in {"B-", "I-"} and tag[2:]):
            return f"tag {place} is none of O, B-label and I-label"
    illegal = first_illegal(tags)
    if illegal is not None:
        return f"tag {illegal + 1} is an I- with nothing to continue; tags are IOB2"
    return None


def _read_conll(path: Path, lines: Lines) -> Iterator[Sentence | BrokenLine]:
    document, columns, start = 0, list[tuple[str, str] | BrokenLine](), 0
    for number, line in (*lines, (0, "")):
        begins_document = isinstance(line, str) and line.startswith("-DOCSTART-")
        if isinstance(line, BrokenLine) or (line.strip() and not begins_document):
            start = start if columns else number
            columns.append(_parse_column(path, number, line))
        elif columns:
            yield from _from_columns(path, start, columns, str(document) if document else None)
            columns = []
        document += begins_document


def _parse_column(path: Path, number: int, line: str | BrokenLine) -> tuple[str, str] | BrokenLine:
    if isinstance(line, BrokenLine):
        return line
    fields = line.split("\t") if "\t" in line else line.split()
    if len(fields) < 2:  # noqa: PLR2004 (a token and a tag)
        return BrokenLine(path, number, "one column; need the token first and its tag last")
    return fields[0], fields[-1]


def _from_columns(
    path: Path, number: int, columns: list[tuple[str, str] | BrokenLine], document: str | None
) -> Iterator[Sentence | BrokenLine]:
    """Yield the sentence, or each of its lines that cannot be read, or what is wrong with it."""
    broken = [each for each in columns if isinstance(each, BrokenLine)]
    if broken:
        yield from broken
        return
    tokens, tags = zip(*(each for each in columns if isinstance(each, tuple)), strict=True)
    reason = _fault(tokens, tags)
    if reason is None:
        yield Sentence(tokens, tags, document=document, line=number)
    else:
        yield BrokenLine(path, number, reason)


_READERS: Mapping[str, Callable[[Path, Lines], Iterator[Sentence | BrokenLine]]] = {
    ".jsonl": _read_jsonl,
    ".conll": _read_conll,
}
