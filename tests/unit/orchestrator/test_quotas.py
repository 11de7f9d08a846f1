"""What one caller may ask for, and what all share, in a clock of their own."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from common.disk import SystemDisk
from common.errors import LimitReached
from common.ids import GatewayId
from common.retry import LONGEST_ASKED_S, Backoff, wait_after
from common.tls import Identity, Role
from orchestrator import budgets
from orchestrator.budgets import (
    MIB,
    DiskNearlyFull,
    DiskReserve,
    MemoryBudget,
    MemoryTaken,
    RoundBytes,
    RoundBytesTaken,
)
from orchestrator.config import Limits
from orchestrator.quotas import (
    KEPT_CALLERS,
    Quotas,
    SilentCall,
    TooManyRequests,
    TooManyStreams,
    TooManyUploads,
)

ALICE = Identity("acme", Role.GATEWAY, "a")
BOB = Identity("acme", Role.GATEWAY, "b")
GATEWAY = GatewayId("a")
LIMITS = Limits(requests_per_s=2.0, requests_at_once=3, streams=2, uploads=1)
FREE = 1000 * MIB


class Now:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


class Fixed(SystemDisk):
    """A disk with so much room."""

    def free(self, folder: Path) -> int:
        return FREE


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def quotas(now: Now) -> Quotas:
    """Two callers, of whom neither has asked for anything."""
    return Quotas(LIMITS, now)


def call(quotas: Quotas, caller: Identity = ALICE) -> None:
    with quotas.call(caller, brings_body=False):
        pass


def test_a_request_beyond_the_rate_is_told_how_long_to_wait(quotas):
    for _ in range(3):
        call(quotas)
    with pytest.raises(TooManyRequests, match=r"more than 2 calls .* again in 0\.50 s") as caught:
        call(quotas)
    assert caught.value.wait_s == 0.5


def test_after_the_wait_that_was_told_a_request_is_taken(quotas, now):
    for _ in range(3):
        call(quotas)
    now.s = 0.5
    call(quotas)
    with pytest.raises(TooManyRequests):
        call(quotas)


def test_one_callers_flood_takes_nothing_from_another(quotas):
    for _ in range(3):
        call(quotas)
    call(quotas, BOB)


def test_the_allowance_grows_no_further_than_what_may_come_at_once(quotas, now):
    now.s = 1e6
    for _ in range(3):
        call(quotas)
    with pytest.raises(TooManyRequests):
        call(quotas)


def test_calls_under_way_are_counted_until_they_end(quotas, now):
    with ExitStack() as open_calls:
        for _ in range(2):
            open_calls.enter_context(quotas.call(ALICE, brings_body=False))
        with pytest.raises(TooManyStreams, match="2 calls under way"):
            call(quotas)
    now.s = 1.0
    call(quotas)


def test_uploads_are_counted_by_themselves(quotas):
    with quotas.call(ALICE, brings_body=True):
        with pytest.raises(TooManyUploads, match="sends 1 bodies already"):
            call_upload(quotas)
        call(quotas)


def call_upload(quotas: Quotas) -> None:
    with quotas.call(ALICE, brings_body=True):
        pass


def test_a_call_that_failed_gives_its_place_back(quotas):
    with pytest.raises(ValueError, match="x"), quotas.call(ALICE, brings_body=True) as use:
        raise ValueError("x")
    assert (use.streams, use.uploads) == (0, 0)


def test_callers_that_ask_for_nothing_are_forgotten(quotas, now):
    for number in range(3 * KEPT_CALLERS):
        now.s += 10.0
        call(quotas, Identity("acme", Role.GATEWAY, str(number)))
    assert len(quotas._uses) <= KEPT_CALLERS + 1


def test_a_caller_with_a_call_under_way_is_not_forgotten(quotas, now):
    with quotas.call(ALICE, brings_body=True):
        for number in range(2 * KEPT_CALLERS):
            now.s += 10.0
            call(quotas, Identity("acme", Role.GATEWAY, str(number)))
        with pytest.raises(TooManyUploads):
            call_upload(quotas)


async def test_a_first_message_that_does_not_come_ends_the_call():
    async def silence():
        await asyncio.Event().wait()
        yield b""

    quotas = Quotas(Limits(first_message_s=0.01))
    with (
        quotas.call(ALICE, brings_body=False) as use,
        pytest.raises(SilentCall, match=r"within 0\.01 s"),
    ):
        await anext(quotas.messages(use, silence()))


async def test_silent_strangers_do_not_hold_up_one_who_speaks():
    """A few, that is: of those who have no name there may be as many as calls of one caller."""

    async def silence():
        await asyncio.Event().wait()
        yield b""

    async def word():
        yield b"enrol"

    quotas = Quotas(Limits(streams=8))
    with ExitStack() as stack:
        uses = [stack.enter_context(quotas.call(None, brings_body=False)) for _ in range(8)]
        waiting = [
            asyncio.create_task(quotas.only_message(use, silence(), "Enrol")) for use in uses[:7]
        ]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(quotas.only_message(uses[7], word(), "Enrol"), 10) == b"enrol"
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)


async def test_memory_is_lent_up_to_the_limit_and_given_back():
    budget = MemoryBudget(10)
    async with budget.lent(6), budget.lent(4):
        assert budget.taken == 10
    assert budget.taken == 0


async def test_who_waits_for_memory_gets_it_in_order():
    budget, order = MemoryBudget(10), []

    async def want(name: str, need: int) -> None:
        async with budget.lent(need):
            order.append(name)

    async with asyncio.TaskGroup() as group, budget.lent(10):
        for name, need in (("large", 9), ("small", 1)):
            group.create_task(want(name, need))
        await asyncio.sleep(0)
        assert order == []
    assert order == ["large", "small"]


async def test_memory_that_does_not_come_free_is_refused_and_nothing_is_kept(monkeypatch):
    monkeypatch.setattr(budgets, "MEMORY_PATIENCE_S", 0.01)
    budget = MemoryBudget(2 * MIB)
    async with budget.lent(2 * MIB):
        with pytest.raises(MemoryTaken, match=r"in_flight_mib \(2 MiB\), this one needs 1 MiB"):
            async with budget.lent(MIB):
                pass
    assert budget.taken == 0


async def test_who_is_gone_while_waiting_for_memory_takes_none():
    budget = MemoryBudget(1)
    async with budget.lent(1):
        waiting = asyncio.ensure_future(budget._take(1))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert budget.taken == 0


def test_a_body_that_leaves_the_reserve_is_taken_and_one_byte_more_is_not():
    reserve = DiskReserve(Fixed(), Path(), 100 * MIB)
    reserve.check(FREE - 100 * MIB)
    with pytest.raises(DiskNearlyFull, match=r"1000 MiB free, the body needs 901 .* keeps 100"):
        reserve.check(FREE - 100 * MIB + 1)


def test_the_bytes_of_a_round_are_counted_and_begin_anew_with_the_next():
    taken = RoundBytes()
    taken.take(GATEWAY, (1, 1), 10, limit=10)
    taken.take(GatewayId("b"), (1, 1), 10, limit=10)
    with pytest.raises(RoundBytesTaken, match=r"more than 10 bytes came .* round 1"):
        taken.take(GATEWAY, (1, 1), 1, limit=10)
    taken.take(GATEWAY, (2, 1), 10, limit=10)


def test_the_bytes_of_a_round_begin_anew_when_it_is_opened_again():
    """Who met too many faults in an attempt is heard in the next one: else no round ever closes."""
    taken = RoundBytes()
    with pytest.raises(RoundBytesTaken):
        taken.take(GATEWAY, (1, 1), 11, limit=10)
    taken.take(GATEWAY, (1, 2), 10, limit=10)


def test_a_limit_is_waited_for_as_long_as_it_says_and_no_longer_than_a_minute():
    waits = Backoff(0.1, 0.1).waits()
    assert wait_after(LimitReached("x", wait_s=3.0), waits) == 3.0
    assert wait_after(LimitReached("x", wait_s=1e9), waits) == LONGEST_ASKED_S
    assert wait_after(ValueError(), waits) == 0.1
