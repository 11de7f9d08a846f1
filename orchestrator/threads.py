"""Work in threads, which nothing can break off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

ResultT = TypeVar("ResultT")


async def to_its_end(threads: ThreadPoolExecutor | None, work: Callable[[], ResultT]) -> ResultT:
    """Return what `work` returns, done in a thread; broken off, wait until it has ended.

    Otherwise a file would be let go while a thread still uses it.
    """
    future = asyncio.get_running_loop().run_in_executor(threads, work)
    try:
        await asyncio.wait([future])
    except asyncio.CancelledError:
        await asyncio.wait([future])
        future.exception()  # it is for nobody any more: the call is gone
        raise
    return future.result()
