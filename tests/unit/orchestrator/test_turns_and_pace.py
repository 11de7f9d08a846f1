"""How many transfers go on at once, and how slow one may be; in the loop's time, moved by hand."""

from __future__ import annotations

import asyncio

import pytest

from common.protocol import Chunk
from orchestrator import pace, turns
from orchestrator.pace import Pace, TooSlow
from orchestrator.turns import Turns


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Transfer:
    """One that ends when it is told to."""

    def __init__(self, of: Turns) -> None:
        self.has_begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._go(of))

    async def _go(self, of: Turns) -> None:
        async with of.turn():
            self.has_begun.set()
            await self.may_end.wait()

    @property
    def began(self) -> bool:
        return self.has_begun.is_set()


async def test_as_many_go_on_as_there_are_turns_in_the_order_in_which_they_came():
    of = Turns(2)
    first, second, third = (Transfer(of) for _ in range(3))
    await settle()
    assert [first.began, second.began, third.began] == [True, True, False]
    first.may_end.set()
    await settle()
    assert third.began


async def test_one_that_takes_too_long_goes_on_beside_the_next(monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE_S", 0.01)
    of = Turns(1)
    slow, other = Transfer(of), Transfer(of)
    await other.has_begun.wait()
    assert not slow.task.done()
    slow.may_end.set()
    other.may_end.set()
    await asyncio.gather(slow.task, other.task)
    monkeypatch.setattr(turns, "PATIENCE_S", 60.0)
    third, fourth = Transfer(of), Transfer(of)  # there is one turn as before, not two
    await settle()
    assert [third.began, fourth.began] == [True, False]


async def test_one_that_is_broken_off_gives_its_turn_back():
    of = Turns(1)
    broken, waiting, next_one = (Transfer(of) for _ in range(3))
    await settle()
    broken.task.cancel()
    waiting.task.cancel()
    await settle()
    assert next_one.began


async def trickle(*pieces: bytes):
    for piece in pieces:
        yield Chunk(0, piece)
    await asyncio.Event().wait()


async def test_a_stream_that_stalls_is_ended(monkeypatch):
    monkeypatch.setattr(pace, "PERIOD_S", 0.01)
    with pytest.raises(TooSlow, match=r"0 bytes came within 0\.01 s"):
        await Pace().next_of(trickle())


async def test_a_stream_of_a_few_bytes_is_ended_and_one_of_enough_is_not(monkeypatch):
    monkeypatch.setattr(pace, "PERIOD_S", 0.02)
    monkeypatch.setattr(pace, "LEAST_BYTES", 100)
    pieces = (bytes(99), bytes(1), b"x")
    watched, stream = Pace(), trickle(*pieces)
    assert [(await watched.next_of(stream)).data for _ in pieces] == list(pieces)
    with pytest.raises(TooSlow, match="1 bytes came"):
        await watched.next_of(stream)


async def test_the_end_of_a_stream_is_no_stall():
    async def ended():
        yield Chunk(0, b"x")

    watched, stream = Pace(), ended()
    assert await watched.next_of(stream) == Chunk(0, b"x")
    assert await watched.next_of(stream) is None
