"""Bodies in chunks: whatever is wrong is found before anything counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.protocol import Body, Chunk
from common.transfer import (
    CHUNK_BYTES,
    BodyTooLong,
    ChunkTooLong,
    DigestMismatch,
    LengthMismatch,
    OffsetMismatch,
    Receiver,
    chunks_of,
    digest_of,
)

DATA = bytes(range(256)) * 8
BODY = Body(digest_of(DATA), len(DATA))


@given(st.binary(max_size=2000), st.integers(0, 2000))
def test_what_is_cut_into_chunks_comes_back_from_any_offset(data, cut):
    offset = min(cut, len(data))
    receiver = Receiver(Body(digest_of(data), len(data)), limit=len(data))
    receiver.take(Chunk(0, data[:offset]))
    assert receiver.received == offset
    for chunk in chunks_of(data, offset):
        receiver.take(chunk)
    assert bytes(receiver.finish()) == data


def test_chunks_are_at_most_a_mebibyte():
    sizes = [len(chunk.data) for chunk in chunks_of(bytes(2 * CHUNK_BYTES + 5))]
    assert sizes == [CHUNK_BYTES, CHUNK_BYTES, 5]


def test_a_body_over_the_limit_is_refused_before_any_byte():
    with pytest.raises(BodyTooLong, match="declares 2048 bytes, at most 100"):
        Receiver(BODY, limit=100)


def test_a_body_too_short_is_refused():
    receiver = Receiver(BODY, limit=len(DATA))
    receiver.take(Chunk(0, DATA[:-1]))
    with pytest.raises(LengthMismatch, match="2047 bytes came, the header declares 2048"):
        receiver.finish()


def test_a_byte_after_the_end_is_refused():
    with pytest.raises(LengthMismatch, match="2049"):
        Receiver(BODY, limit=len(DATA)).take(Chunk(0, DATA + b"x"))


def test_another_digest_is_refused():
    receiver = Receiver(BODY, limit=len(DATA))
    receiver.take(Chunk(0, DATA[::-1]))
    with pytest.raises(DigestMismatch):
        receiver.finish()


def test_a_chunk_out_of_place_is_refused():
    with pytest.raises(OffsetMismatch, match="begins at byte 5, the next one needed begins at 0"):
        Receiver(BODY, limit=len(DATA)).take(Chunk(5, DATA[5:]))


def test_a_resumption_that_does_not_fit_is_refused():
    with pytest.raises(OffsetMismatch):
        Receiver(Body(BODY.digest, BODY.byte_length, 7), limit=len(DATA))


def test_a_chunk_over_the_limit_is_refused():
    body = Body(digest_of(b""), 10 * CHUNK_BYTES)
    with pytest.raises(ChunkTooLong):
        Receiver(body, limit=body.byte_length).take(Chunk(0, bytes(CHUNK_BYTES + 1)))
