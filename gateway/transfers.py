"""Whole bodies over a channel that may break: resumed by offset, ended by lack of progress."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from common.errors import LimitReached, UnavailableError
from common.protocol import Body, Chunk
from common.retry import wait_after
from common.transfer import DigestMismatch, Receiver, chunks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from common.client import OrchestratorClient
    from common.protocol import Receipt, UpdateHeader
    from common.retry import Backoff

PATIENCE = 20  # tries in a row without a single byte more
DAMAGED = 4  # tries of a whole body whose bytes were damaged: their file may be restored meanwhile


async def fetch(
    client: OrchestratorClient, body: Body, backoff: Backoff, *, limit: int
) -> memoryview:
    """Return the bytes of `body`, length and digest checked.

    Raises:
        UnavailableError: the orchestrator did not answer, or brought nothing, PATIENCE times.
        DigestMismatch: the bytes were damaged, DAMAGED times.
        RequestError: what came is not what `body` declares, or that is more than `limit` bytes.
    """
    waits, damaged = backoff.waits(), 0
    while True:
        receiver = Receiver(body, limit=limit)
        await _fill(receiver, client, body, waits)
        try:
            return receiver.finish()
        except DigestMismatch:
            damaged += 1
            if damaged == DAMAGED:
                raise
        await asyncio.sleep(next(waits))


async def _fill(
    receiver: Receiver, client: OrchestratorClient, body: Body, waits: Iterator[float]
) -> None:
    failures = 0
    while True:
        before = receiver.received
        try:
            async for part in client.fetch_weights(body.digest, receiver.received):
                if isinstance(part, Chunk):
                    receiver.take(part)
        except UnavailableError as error:
            failures = 0 if receiver.received > before else failures + 1
            if failures > PATIENCE:
                raise
            await asyncio.sleep(wait_after(error, waits))
        else:
            return


async def send(client: OrchestratorClient, header: UpdateHeader, data: memoryview) -> Receipt:
    """Send an update, or the part of it that has not arrived; return the receipt.

    The same call again, after any error, sends the rest of the same bytes. Where all of it is
    refused, the orchestrator is asked once what it has: mostly it has nothing, and is not asked.
    """
    try:
        return await client.submit_update(header, _chunks(data, 0))
    except LimitReached:
        raise  # to ask at once would be one more call beyond the limit
    except UnavailableError:
        state = await client.get_upload(header.key, header.body.digest)
        offset = len(data) if state.received else state.offset
        resumed = replace(header, body=replace(header.body, offset=offset))
        return await client.submit_update(resumed, _chunks(data, offset))


async def _chunks(data: memoryview, offset: int) -> AsyncIterator[Chunk]:
    for chunk in chunks_of(data, offset):
        yield chunk
