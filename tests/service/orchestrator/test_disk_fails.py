"""Disks that fail, fill up or are altered: nothing acknowledged is lost, the run goes on."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common.disk import SystemDisk, SystemFile
from common.errors import UnavailableError
from common.ids import GatewayId, RunId
from common.plan import Rounds
from common.protocol import Body, RunState
from orchestrator.aggregation import Accumulator
from orchestrator.config import Limits
from orchestrator.live_runs import LiveRun
from orchestrator.orchestrator import Orchestrator
from orchestrator.rounds import Phase
from orchestrator.rpc_errors import status_of
from orchestrator.weight_store import StorageFailed
from tests.fakes import INITIAL, FakeClock, FakeGateway, chunks, plan_of
from tests.signing import order
from tests.tmpfs import SmallDisk, small_disk

PLAN = plan_of("a", "b", rounds=Rounds(count=1, maximum=1, quorum=2, deadline_s=60.0))
UNAVAILABLE = 14  # of gRPC


class Flaw(SystemDisk):
    """A disk of which chosen folders are full, or take and give nothing at all."""

    def __init__(self) -> None:
        self.full: set[str] = set()
        self.broken: set[str] = set()

    def at(self, path: Path, *, grows: bool = False) -> Path:
        if path.parent.name in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if grows and path.parent.name in self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return path

    def open(self, path: Path) -> SystemFile:
        return super().open(self.at(path))

    def create(self, path: Path) -> SystemFile:
        return Growing(self, self.at(path, grows=True), os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def extend(self, path: Path) -> SystemFile:
        return Growing(self, self.at(path), os.O_RDWR | os.O_CREAT)

    def rename(self, path: Path, target: Path) -> None:
        super().rename(self.at(path), target)

    def unlink(self, path: Path) -> None:
        super().unlink(self.at(path))

    def names(self, folder: Path) -> list[str]:
        return super().names(self.at(folder / "any").parent)


class Growing(SystemFile):
    """A file that cannot grow while its disk is full."""

    def __init__(self, disk: Flaw, path: Path, flags: int) -> None:
        self._disk, self._path = disk, path
        super().__init__(path, flags)

    def write(self, data, offset: int) -> None:
        self._disk.at(self._path, grows=True)
        super().write(data, offset)


class Restless(FakeClock):
    """A clock on which only the round's deadline takes its time; it counts the other waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: asyncio.Queue[None] = asyncio.Queue()

    async def sleep_until(self, deadline: float) -> None:
        if deadline - self.now() > 5.0:
            await super().sleep_until(deadline)
            return
        self.waited.put_nowait(None)
        await asyncio.sleep(0)


@dataclass
class Opened:
    """An orchestrator with two gateways in the only round of its run."""

    folder: Path
    disk: SystemDisk = field(default_factory=Flaw)
    clock: Restless = field(default_factory=Restless)
    gateways: list[FakeGateway] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    journal_in: Path | None = None  # None: with the rest

    async def open(self) -> Opened:
        journal = (self.journal_in or self.folder) / "journal.db"
        url, data = f"sqlite:///{journal}", INITIAL.to_bytes()
        self.orchestrator = Orchestrator(
            *(self.folder, url),
            federation="acme",
            clock=self.clock,
            limits=self.limits,
            disk=self.disk,
        ).start(restart_grace_s=1.0)
        operations = self.orchestrator.operations
        await operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data))
        await operations.start_run(*order("r", PLAN))
        seen_by = self.orchestrator.seen_by
        self.gateways = [FakeGateway(name, seen_by(GatewayId(name))) for name in "ab"]
        for gateway in self.gateways:
            await gateway.accept("r")
        self.live: LiveRun = self.orchestrator.runs.get(RunId("r"))
        await self.until(lambda: self.live.run.round is not None)
        return self

    async def send(self, gateway: FakeGateway) -> None:
        await gateway.send("r", 1, INITIAL.digest)

    async def send_all(self) -> None:
        for gateway in self.gateways:
            await self.send(gateway)

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await asyncio.wait_for(self.live.changed.next.wait(), 5.0)

    async def until_tried_again(self, times: int = 3) -> None:
        """Return once the run's next step has failed so often."""
        async with asyncio.timeout(5.0):
            for _ in range(times):
                await self.clock.waited.get()
        assert not self.orchestrator.runs.halted.is_set()

    async def model(self) -> str:
        async with asyncio.timeout(10.0):
            async for status in self.orchestrator.operations.watch_run(RunId("r")):
                last = status
        assert last.state is RunState.COMPLETED, last
        await self.orchestrator.close()
        return last.model_sha256


@pytest.fixture
async def opened(tmp_path) -> Opened:
    return await Opened(tmp_path / "failing").open()


@pytest.fixture
async def expected(tmp_path) -> str:
    """The model of a run in which nothing fails."""
    whole = await Opened(tmp_path / "whole").open()
    await whole.send_all()
    return await whole.model()


async def test_a_sum_that_may_hold_a_part_of_an_update_is_made_again(opened, expected, monkeypatch):
    (a, b), add = opened.gateways, Accumulator.add
    await opened.send(a)

    def half(self, gateway, values, weight, factor):
        self.memory[0] += 5
        raise StorageFailed(OSError(5, "Input/output error"))

    monkeypatch.setattr(Accumulator, "add", half)
    with pytest.raises(UnavailableError, match="disk failed"):
        await opened.send(b)
    monkeypatch.setattr(Accumulator, "add", add)
    await opened.until(lambda: not opened.live.is_in_doubt)
    assert set(opened.live.run.round.awaited) == {"a", "b"}
    await opened.send_all()
    assert await opened.model() == expected


async def test_a_round_is_published_once_its_disk_is_no_longer_full(opened, expected):
    opened.disk.full = {"weights"}
    with capture_logs() as logged:
        await opened.send_all()
        await opened.until_tried_again()
    assert opened.live.run.round.phase is Phase.AGGREGATING
    assert any("No space left" in each.get("why", "") for each in logged)
    opened.disk.full = set()
    assert await opened.model() == expected


async def test_a_round_is_published_once_its_parent_is_restored(opened, expected):
    file = opened.folder / "weights" / INITIAL.digest
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"!")
    with capture_logs() as logged:
        await opened.send_all()
        await opened.until_tried_again()
    assert any("damaged: restore them" in each.get("why", "") for each in logged)
    file.write_bytes(whole)
    assert await opened.model() == expected


async def test_an_update_is_taken_once_the_disk_is_no_longer_full(opened, expected):
    a, b = opened.gateways
    await opened.send(a)
    opened.disk.full = {"uploads"}
    with pytest.raises(UnavailableError, match=r"No space left.*try again later") as caught:
        await opened.send(b)
    assert status_of(caught.value).code == UNAVAILABLE
    assert opened.live.run.round.received.keys() == {"a"}
    opened.disk.full = set()
    await opened.send(b)
    assert await opened.model() == expected


async def test_a_file_that_cannot_be_tidied_away_hinders_nothing(opened, expected, monkeypatch):
    add = Accumulator.add

    def added(self, gateway, values, weight, factor):
        add(self, gateway, values, weight, factor)
        opened.disk.broken = {"uploads"}

    monkeypatch.setattr(Accumulator, "add", added)
    for gateway in opened.gateways:
        opened.disk.broken = set()
        await opened.send(gateway)
    assert await opened.model() == expected


@pytest.fixture
def small(tmp_path) -> Iterator[SmallDisk]:
    """A real disk of 8 MiB."""
    with small_disk(tmp_path / "small") as disk:
        yield disk


def is_of_a_full_disk(said: str) -> bool:
    """Whether a file system's sentence is in it, or SQLite's."""
    return "No space left on device" in said or "database or disk is full" in said


@pytest.fixture(params=["journal beside", "journal elsewhere"])
async def on_small(small, tmp_path, request) -> Opened:
    """An orchestrator that uses that disk to its last byte; the journal's may be another."""
    elsewhere = tmp_path if request.param == "journal elsewhere" else None
    limits = Limits(disk_reserve_mib=0)
    opened = Opened(small.folder, disk=SystemDisk(), limits=limits, journal_in=elsewhere)
    return await opened.open()


async def test_a_disk_that_is_really_full_refuses_an_update_until_there_is_room(
    small, on_small, expected
):
    a, _ = on_small.gateways
    small.fill()
    with capture_logs() as logged, pytest.raises(UnavailableError) as caught:
        await on_small.send(a)
    assert str(caught.value).endswith("try again later")
    said = " ".join((str(caught.value), *(each.get("why", "") for each in logged)))
    assert is_of_a_full_disk(said), said
    assert status_of(caught.value).code == UNAVAILABLE
    small.make_room()
    await on_small.send_all()
    assert await on_small.model() == expected


async def test_a_disk_that_is_really_full_when_a_round_is_published_costs_only_time(
    small, on_small, expected, monkeypatch
):
    add, seen = Accumulator.add, list[str]()

    def added(self, gateway, values, weight, factor):
        add(self, gateway, values, weight, factor)
        seen.append(gateway)
        if len(seen) == len(on_small.gateways):
            small.fill()

    monkeypatch.setattr(Accumulator, "add", added)
    with capture_logs() as logged:
        await on_small.send_all()
        await on_small.until_tried_again()
    said = " ".join(each.get("why", "") for each in logged)
    assert is_of_a_full_disk(said), said
    small.make_room()
    assert await on_small.model() == expected
