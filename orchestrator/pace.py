"""How slowly a body may come before its transfer is ended: by lack of progress, never in all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from common.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.protocol import Chunk

PERIOD_S = 30.0
LEAST_BYTES = 30 << 10  # in a period: a kibibyte a second


class TooSlow(UnavailableError):
    """The bytes of a body stopped coming, or nearly."""

    def __init__(self, got: int) -> None:
        super().__init__(
            f"{got} bytes came within {PERIOD_S:g} s, at least {LEAST_BYTES} must: what came is "
            "kept, ask GetUpload where to go on"
        )


class Pace:
    """Watches one transfer."""

    def __init__(self) -> None:
        self._now = asyncio.get_running_loop().time
        self._begin = self._now()
        self._got = 0

    async def next_of(self, chunks: AsyncIterator[Chunk]) -> Chunk | None:
        """Return the next of `chunks`, None after the last.

        Raises:
            TooSlow: less than LEAST_BYTES came in PERIOD_S.
        """
        try:
            async with asyncio.timeout_at(self._begin + PERIOD_S):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise TooSlow(self._got) from None
        self._got += 0 if chunk is None else len(chunk.data)
        if self._got >= LEAST_BYTES:  # a new period begins
            self._begin, self._got = self._now(), 0
        return chunk
