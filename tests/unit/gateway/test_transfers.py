"""Bodies over an orchestrator that breaks off, or that has damaged ones."""

from __future__ import annotations

from itertools import repeat

import pytest

from common.errors import UnavailableError
from common.protocol import Body
from common.retry import Backoff
from common.transfer import CHUNK_BYTES, DigestMismatch, chunks_of, digest_of
from gateway.transfers import DAMAGED, PATIENCE, fetch

DATA = bytes(range(256)) * (CHUNK_BYTES // 128) + b"the rest"
BODY = Body(digest_of(DATA), len(DATA))
BROKEN = UnavailableError("the connection broke")


class Scripted:
    """Gives, call by call, what bytes it has and how many chunks before it breaks off."""

    def __init__(self, calls) -> None:
        self._calls = iter(calls)
        self.offsets = []

    async def fetch_weights(self, _digest, offset):
        self.offsets.append(offset)
        data, chunks = next(self._calls)
        yield Body(BODY.digest, len(data), offset)
        for number, chunk in enumerate(chunks_of(data, offset)):
            if number == chunks:
                raise BROKEN
            yield chunk
        if chunks == 0:
            raise BROKEN


async def fetched(*calls) -> tuple[bytes, list[int]]:
    client = Scripted(calls)
    data = await fetch(client, BODY, Backoff(0, 0), limit=len(DATA))
    return bytes(data), client.offsets


async def test_a_body_that_breaks_off_goes_on_where_it_was():
    assert await fetched((DATA, 1), (DATA, 0), (DATA, None)) == (DATA, [0, CHUNK_BYTES, CHUNK_BYTES])


async def test_a_damaged_body_is_fetched_again_once_it_is_restored():
    damaged = bytes(len(DATA))
    assert await fetched((damaged, None), (DATA, None)) == (DATA, [0, 0])


async def test_a_body_that_stays_damaged_is_refused_as_such():
    client = Scripted(repeat((bytes(len(DATA)), None)))
    with pytest.raises(DigestMismatch):
        await fetch(client, BODY, Backoff(0, 0), limit=len(DATA))
    assert client.offsets == [0] * DAMAGED


async def test_only_tries_without_a_byte_count():
    calls = [*repeat((DATA, 0), PATIENCE), (DATA, 1), *repeat((DATA, 0), PATIENCE), (DATA, None)]
    assert (await fetched(*calls))[0] == DATA
    client = Scripted(repeat((DATA, 0)))
    with pytest.raises(UnavailableError):
        await fetch(client, BODY, Backoff(0, 0), limit=len(DATA))
    assert len(client.offsets) == PATIENCE + 1
