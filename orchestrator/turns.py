"""A few transfers at a time: more only share the same processor, and what waits takes no memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATIENCE_S = 2.0


class Turns:
    """Lets transfers in, first come first served; one over a slow line does not hold up others."""

    def __init__(self, at_once: int) -> None:
        """Let `at_once` go on; whoever is not done within PATIENCE_S goes on beside them."""
        self._free = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it inside the block."""
        await self._free.acquire()
        is_taken = True

        def give_back() -> None:  # by whoever comes first
            nonlocal is_taken
            if is_taken:
                is_taken = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(PATIENCE_S, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()
