"""Chunks on their way out: read once for all who fetch side by side."""

from __future__ import annotations

import asyncio

import pytest

from common.transfer import CHUNK_BYTES
from orchestrator.database import open_database
from orchestrator.downloads import KEPT_CHUNKS, RecentChunks
from orchestrator.fencing import Fence
from orchestrator.weight_store import StorageFailed, WeightStore

DATA = bytes(range(256)) * (CHUNK_BYTES // 256) + b"the rest"


class Counting(WeightStore):
    """Counts its reads."""

    reads = 0

    def read(self, digest: str, offset: int, length: int) -> memoryview:
        self.reads += 1
        return super().read(digest, offset, length)


@pytest.fixture
def store(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'journal.db'}")
    yield Counting(tmp_path / "weights", Fence(engine))
    engine.dispose()


async def test_those_who_fetch_side_by_side_share_what_is_read(store):
    digest = store.put(DATA)
    recent = RecentChunks(store)
    for offset, expected in [(0, DATA[:CHUNK_BYTES]), (CHUNK_BYTES, b"the rest")]:
        chunks = await asyncio.gather(*(recent.get(digest, offset) for _ in range(5)))
        assert {(chunk.offset, bytes(chunk.data)) for chunk in chunks} == {(offset, expected)}
    assert store.reads == 2


async def test_one_who_goes_on_within_a_chunk_gets_its_rest(store):
    chunk = await RecentChunks(store).get(store.put(DATA), 5)
    assert bytes(chunk.data) == DATA[5:CHUNK_BYTES]


async def test_only_so_many_are_kept(store):
    digest, recent = store.put(DATA), RecentChunks(store)
    for offset in range(KEPT_CHUNKS + 1):
        await recent.get(digest, offset)
    await recent.get(digest, KEPT_CHUNKS)
    assert store.reads == KEPT_CHUNKS + 1
    await recent.get(digest, 0)
    assert store.reads == KEPT_CHUNKS + 2


async def test_nothing_is_kept_of_weights_that_nobody_fetches(store, tmp_path):
    digest, recent = store.put(DATA), RecentChunks(store)
    file = tmp_path / "weights" / digest
    file.write_bytes(bytes(len(DATA)))
    with recent.shared(digest):
        with recent.shared(digest):
            await recent.get(digest, 0)
        file.write_bytes(DATA)
        assert bytes((await recent.get(digest, 0)).data) == bytes(CHUNK_BYTES)
    assert bytes((await recent.get(digest, 0)).data) == DATA[:CHUNK_BYTES]


async def test_what_could_not_be_read_is_read_again(store, tmp_path):
    digest, recent = store.put(DATA), RecentChunks(store)
    file = tmp_path / "weights" / digest
    file.rename(tmp_path / "away")
    with pytest.raises(StorageFailed):
        await recent.get(digest, 0)
    (tmp_path / "away").rename(file)
    assert len((await recent.get(digest, 0)).data) == CHUNK_BYTES


async def test_a_file_that_became_shorter_is_a_failure_of_the_disk(store, tmp_path):
    digest = store.put(DATA)
    (tmp_path / "weights" / digest).write_bytes(DATA[:10])
    with pytest.raises(StorageFailed, match="shorter"):
        await RecentChunks(store).get(digest, CHUNK_BYTES)
