"""Work in threads, which nothing can break off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

ResultT = TypeVar("ResultT")


async def to_its_end(threads: Executor | None, work: Callable[[], ResultT]) -> ResultT:
    """Return what `work` returns, done in a thread; broken off, wait until it has ended.

    A thread cannot be stopped: a file, or the lease on a ledger, would be let go while it still
    writes. None stands for the loop's own threads.
    """
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        await asyncio.wait([future])
        future.exception()  # it is for nobody any more
        raise
    return future.result()
