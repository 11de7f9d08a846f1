"""Bodies over an orchestrator that breaks off, or that has damaged ones."""

from __future__ import annotations

from itertools import repeat

import pytest

from common.errors import UnavailableError
from common.ids import PlanId, RunId, WeightsId
from common.protocol import Body, UpdateHeader, UpdateKey, UploadState
from common.retry import Backoff
from common.transfer import CHUNK_BYTES, DigestMismatch, chunks_of, digest_of
from gateway.transfers import DAMAGED, PATIENCE, fetch, send

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
    assert await fetched((DATA, 1), (DATA, 0), (DATA, None)) == (
        DATA,
        [0, CHUNK_BYTES, CHUNK_BYTES],
    )


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


HEADER = UpdateHeader(UpdateKey(RunId("r"), 1), PlanId("p"), WeightsId("w"), BODY, None)


class Taking:
    """Keeps an update's bytes; cuts the first transfers off after so many bytes."""

    def __init__(self, *cuts: int, held: int = 0) -> None:
        self._cuts = list(cuts)
        self.data = bytearray(DATA[:held])
        self.came, self.asked = 0, 0

    async def get_upload(self, _key, _digest):
        self.asked += 1
        return UploadState(len(self.data), received=False)

    async def submit_update(self, header, chunks):
        if header.body.offset != len(self.data):
            raise UnavailableError("ask where to go on")
        cut = self._cuts.pop(0) if self._cuts else len(DATA)
        async for chunk in chunks:
            if len(self.data) >= cut:
                raise BROKEN
            self.data += chunk.data
            self.came += len(chunk.data)
        return "receipt"


async def test_an_update_of_which_nothing_came_is_sent_without_asking():
    taking = Taking()
    assert await send(taking, HEADER, memoryview(DATA)) == "receipt"
    assert (taking.data, taking.asked) == (DATA, 0)


@pytest.mark.parametrize(
    "taking", [Taking(held=CHUNK_BYTES), Taking(CHUNK_BYTES)], ids=["earlier", "now"]
)
async def test_of_an_update_that_was_cut_off_only_the_rest_is_sent(taking):
    held = len(taking.data)
    assert await send(taking, HEADER, memoryview(DATA)) == "receipt"
    assert (taking.data, taking.asked, taking.came) == (DATA, 1, len(DATA) - held)


async def test_an_update_that_is_cut_off_again_is_left_for_later():
    taking = Taking(CHUNK_BYTES, 2 * CHUNK_BYTES)
    with pytest.raises(UnavailableError):
        await send(taking, HEADER, memoryview(DATA))
    assert taking.data == DATA[: 2 * CHUNK_BYTES]
