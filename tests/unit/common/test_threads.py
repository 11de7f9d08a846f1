"""Work in a thread for a call that may be cancelled at any moment."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import Executor, Future

import pytest

from common.threads import to_its_end


class ByHand(Executor):
    """Ends its one piece of work when it is told."""

    def __init__(self) -> None:
        self.given = Future()

    def submit(self, work, /):
        return self.given


async def test_a_call_that_is_cancelled_waits_for_its_thread():
    threads = ByHand()
    call = asyncio.create_task(to_its_end(threads, lambda: None))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0)
    assert not call.done()
    threads.given.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_what_fails_for_a_call_that_is_gone_is_no_error_of_the_process():
    reported, threads = [], ByHand()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    call = asyncio.create_task(to_its_end(threads, lambda: None))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.sleep(0)
    threads.given.set_exception(ValueError("the update is too short"))
    await asyncio.gather(call, return_exceptions=True)
    del call, threads
    gc.collect()
    await asyncio.sleep(0)
    assert not reported


async def test_work_in_a_thread_is_waited_for_when_it_is_cancelled():
    begun, finish, done = asyncio.Event(), asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(finish.wait(), loop).result()
        done.append("written")

    working = asyncio.create_task(to_its_end(None, work))
    await begun.wait()
    working.cancel()
    await asyncio.sleep(0)
    assert done == []
    finish.set()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert done == ["written"]
