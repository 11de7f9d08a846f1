"""What all callers share: memory for runs and for bodies under way, and room on the disks."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import ConflictError, LimitReached, UnavailableError
from common.transfer import CHUNK_BYTES
from orchestrator.server_optimizer import tail_length
from orchestrator.weight_store import StorageFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from common.disk import Disk
    from common.ids import GatewayId, RunId
    from common.plan import Plan
    from orchestrator.config import Limits

Opening = tuple[int, int]  # a round's number, and which attempt at it

MIB = 1 << 20
MEMORY_PATIENCE_S = 5.0  # mostly somebody is done by then
ROUND_WAIT_S = 30.0  # a round takes longer than that, mostly
OF_A_DOWNLOAD = 3 * CHUNK_BYTES  # framed for it, copied by gRPC, and what is not sent yet
OF_AN_UPLOAD = 10 * CHUNK_BYTES  # what came, what a thread takes, and what comes meanwhile


class MemoryTaken(LimitReached):
    """The bodies that are under way leave no memory for another."""

    def __init__(self, *, need: int, limit: int) -> None:
        super().__init__(
            f"the bodies under way take all of limits.in_flight_mib ({limit // MIB} MiB), this one "
            f"needs {-(-need // MIB)} MiB: try again in {MEMORY_PATIENCE_S:g} s",
            wait_s=MEMORY_PATIENCE_S,
        )


class DiskNearlyFull(UnavailableError):
    """A body would leave less room on a disk than the rest of the orchestrator may need."""

    def __init__(self, *, free: int, need: int, reserve: int) -> None:
        super().__init__(
            f"the orchestrator's disk has {free // MIB} MiB free, the body needs "
            f"{-(-need // MIB)} and limits.disk_reserve_mib keeps {reserve // MIB}: no body is "
            "taken until its operator makes room, then it goes on by itself"
        )


class RoundBytesTaken(LimitReached):
    """A gateway sends its update for a round again and again."""

    def __init__(self, number: int, *, limit: int) -> None:
        super().__init__(
            f"more than {limit} bytes came from this gateway for round {number}, repeats counted "
            "(limits.bodies_per_round): nothing more is taken before a round is opened again",
            wait_s=ROUND_WAIT_S,
        )


class NoMemoryLeft(ConflictError):
    """The runs that go on leave too little memory for another."""

    field = "limits.max_runs_mib"

    def __init__(self, *, need: int, taken: Mapping[RunId, int], limit: int) -> None:
        by_run = ", ".join(f"{run_id!r} {mib}" for run_id, mib in taken.items()) or "none"
        super().__init__(
            f"this run needs {need} MiB of the orchestrator's memory, limits.max_runs_mib is "
            f"{limit}, and taken are (MiB): {by_run}. Start it once one of them has ended, or "
            "raise the limit"
        )


class MemoryBudget:
    """Lends memory, first come first served; lives on the event loop."""

    def __init__(self, limit: int) -> None:
        """Lend at most `limit` bytes at a time."""
        self._limit = limit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.taken = 0

    @asynccontextmanager
    async def lent(self, need: int) -> AsyncIterator[None]:
        """Lend `need` bytes inside the block; raise MemoryTaken after MEMORY_PATIENCE_S."""
        await self._take(need)
        try:
            yield
        finally:
            self.taken -= need
            self._serve()

    async def _take(self, need: int) -> None:
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((need, asked))
        self._serve()
        try:
            async with asyncio.timeout(MEMORY_PATIENCE_S):
                await asked
        except BaseException as error:
            if asked.done() and not asked.cancelled():
                self.taken -= need  # lent in the moment in which it was no longer wanted
            self._waiting = deque(each for each in self._waiting if each[1] is not asked)
            self._serve()
            if isinstance(error, TimeoutError):
                raise MemoryTaken(need=need, limit=self._limit) from None
            raise

    def _serve(self) -> None:
        while self._waiting and self.taken + self._waiting[0][0] <= self._limit:
            need, asked = self._waiting.popleft()
            if not asked.done():
                self.taken += need
                asked.set_result(None)


class DiskReserve:
    """Room on the disk of a folder that no body may take."""

    def __init__(self, disk: Disk, folder: Path, reserve: int) -> None:
        """Keep `reserve` bytes free where `folder` lies."""
        self._disk = disk
        self._folder = folder
        self._reserve = reserve

    def check(self, need: int) -> None:
        """Raise DiskNearlyFull unless `need` bytes more leave the reserve."""
        if not self._reserve:
            return
        try:
            free = self._disk.free(self._folder)
        except OSError as error:
            raise StorageFailed(error) from error
        if free - need < self._reserve:
            raise DiskNearlyFull(free=free, need=need, reserve=self._reserve)


@dataclass(frozen=True)
class Room:
    """What there is for the bodies that come in to one folder."""

    memory: MemoryBudget
    disk: DiskReserve
    limits: Limits


class RoundBytes:
    """How many bytes of bodies each gateway has sent for the round that is open.

    A round that was abandoned and is open again is another one here: whoever met many faults in
    it would otherwise never be heard again, and a run without its quorum go on for ever.
    """

    def __init__(self) -> None:
        self._of: dict[GatewayId, tuple[Opening, int]] = {}  # and bytes

    def of(self, gateway: GatewayId, opening: Opening) -> int:
        """Return how many bytes of a gateway were counted for a round."""
        counted, so_far = self._of.get(gateway, (opening, 0))
        return so_far if counted == opening else 0

    def take(self, gateway: GatewayId, opening: Opening, count: int, *, limit: int) -> None:
        """Count bytes for a round; raise RoundBytesTaken beyond `limit`."""
        so_far = count + self.of(gateway, opening)
        self._of[gateway] = (opening, so_far)
        if so_far > limit:
            raise RoundBytesTaken(opening[0], limit=limit)


def mib_of(plan: Plan) -> int:
    """Return how much memory a run needs at most, in MiB.

    The sum takes 8 bytes a value. What is read whole (the first model, a kept update) takes 4, and
    each of the server's momentum and tail average 16 while a round is published: what was, and
    what will be.
    """
    server = plan.server
    has_tail = tail_length(server, plan.rounds.count) > 1
    a_value = 12 + 16 * (server.momentum > 0) + 16 * has_tail
    return -(-plan.task.layout.size * a_value // MIB)
