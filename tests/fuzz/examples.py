"""Examples for hypothesis: a seed of a target, cut up and put together again, or anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fuzz.target import Target

WHOLE = 1 << 16  # places are fractions of the length, in these parts
PIECES = (
    *(b"\x00", b"\xff", b"\x7f", b"\x80", b"[", b"{", b'"', b"\n", b"\t", b" ", b"="),
    b"\xff" * 9 + b"\x01",  # the largest varint
    b"\x00\x00\x00\x00\x00\x00\xf8\x7f",  # NaN
    b"\x00\x00\x00\x00\x00\x00\xf0\xff",  # minus infinity
    *(b"null", b"-1", b"1e999", b"nan", b"true", b"9" * 30, b"[" * 300, b'{"a":' * 300),
    *(b"\xed\xa0\x80", b"\xc3\x28", "\u2028".encode(), b"\\ud800"),
)


@dataclass(frozen=True)
class Edit:
    """A change of bytes at a place."""

    how: str
    place: int
    length: int
    piece: bytes


def _put(data: bytes, begin: int, end: int, piece: bytes) -> bytes:
    return data[:begin] + piece + data[end:]


def _flipped(data: bytes, begin: int, _: int, piece: bytes) -> bytes:
    flipped = bytes(each ^ (piece or b"\x01")[0] for each in data[begin : begin + 1])
    return _put(data, begin, begin + 1, flipped)


EDITS: dict[str, Callable[[bytes, int, int, bytes], bytes]] = {
    "insert": lambda data, begin, _, piece: _put(data, begin, begin, piece),
    "replace": _put,
    "overwrite": lambda data, begin, _, piece: _put(data, begin, begin + len(piece), piece),
    "cut": lambda data, begin, end, _: _put(data, begin, end, b""),
    "end": lambda data, begin, _, __: data[:begin],
    "repeat": lambda data, begin, end, _: _put(data, end, end, data[begin:end] * 3),
    "flip": _flipped,
}


def edited(data: bytes, edits: Sequence[Edit]) -> bytes:
    """Return `data` after `edits`."""
    for edit in edits:
        begin = edit.place * (len(data) + 1) // WHOLE
        data = EDITS[edit.how](data, begin, begin + edit.length, edit.piece)
    return data


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    """Return inputs of a target: mostly what is nearly right."""
    edit = st.builds(
        Edit,
        how=st.sampled_from(sorted(EDITS)),
        place=st.integers(0, WHOLE - 1),
        length=st.integers(0, 64),
        piece=st.sampled_from(PIECES) | st.binary(max_size=8),
    )
    seeds = st.sampled_from((*target.seeds, *target.found()))
    return st.builds(edited, seeds, st.lists(edit, max_size=6)) | st.binary(max_size=300)
