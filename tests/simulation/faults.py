"""What can go wrong: kinds, how often each seed lets each happen, and how often it did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from random import Random

from sqlalchemy.exc import DBAPIError

from common.errors import UnavailableError
from tests.simulation.loop import Crashed, Process

HARMLESS = (OSError, DBAPIError, UnavailableError)  # what faults may end a call or a process with


class Fault(StrEnum):
    """One way in which the world fails the federation."""

    DELAY = "a message takes seconds"
    LOSS_BEFORE = "a call is lost before the orchestrator has it"
    LOSS_AFTER = "an answer is lost after the orchestrator has acted"
    DUPLICATION = "a call arrives twice"
    REPLAY = "an update comes again, much later"
    REORDERING = "a call overtakes an earlier one"
    STREAM_BREAK = "a stream breaks between two messages"
    PARTITION = "a gateway is cut off both ways"
    PARTITION_ONE_WAY = "a gateway is cut off one way"
    SLOW_PEER = "a gateway's link is slow for a while"
    ORCHESTRATOR_KILL = "the orchestrator is killed"
    ORCHESTRATOR_POWER_LOSS = "the orchestrator's machine loses power"
    GATEWAY_KILL = "a gateway is killed"
    GATEWAY_POWER_LOSS = "a gateway's machine loses power"
    CRASH_AT_DISK = "a process ends at a call of the disk"
    CRASH_AT_COMMIT = "a process ends at a commit"
    TWO_ORCHESTRATORS = "a second orchestrator starts while the first is paused"
    PAUSE = "a process is paused"
    SLOW_THREAD = "work in a thread takes seconds"
    TORN_WRITE = "a write that was not synced is torn"
    LOST_WRITE = "a write that was not synced is lost"
    LOST_NAME = "a name that was not synced is lost"
    DISK_FULL = "a disk is full"
    EIO = "a disk reports an error"
    COMMIT_FAILED_BEFORE = "a commit fails"
    COMMIT_FAILED_AFTER = "a commit is reported as failed and has happened"
    DATABASE_AWAY = "a database is away"
    CLOCK_JUMP = "a wall clock jumps"
    CLOCK_RATE = "a clock runs fast or slow"


# of those that are drawn at each occasion: the least and the largest probability
RATES = {
    Fault.DELAY: (0.01, 0.2),
    Fault.LOSS_BEFORE: (0.005, 0.1),
    Fault.LOSS_AFTER: (0.005, 0.1),
    Fault.DUPLICATION: (0.005, 0.15),
    Fault.STREAM_BREAK: (0.02, 0.3),
    Fault.CRASH_AT_DISK: (0.01, 0.15),
    Fault.CRASH_AT_COMMIT: (0.001, 0.03),
    Fault.SLOW_THREAD: (0.01, 0.2),
    Fault.EIO: (0.001, 0.03),
    Fault.COMMIT_FAILED_BEFORE: (0.002, 0.04),
    Fault.COMMIT_FAILED_AFTER: (0.002, 0.04),
}

# of those that come by themselves: the least and the largest mean of seconds between two
PERIODS = {
    Fault.PARTITION: (4.0, 40.0),
    Fault.PARTITION_ONE_WAY: (4.0, 40.0),
    Fault.REPLAY: (2.0, 20.0),
    Fault.SLOW_PEER: (5.0, 40.0),
    Fault.ORCHESTRATOR_KILL: (4.0, 40.0),
    Fault.ORCHESTRATOR_POWER_LOSS: (4.0, 40.0),
    Fault.GATEWAY_KILL: (3.0, 30.0),
    Fault.GATEWAY_POWER_LOSS: (3.0, 30.0),
    Fault.TWO_ORCHESTRATORS: (5.0, 40.0),
    Fault.PAUSE: (4.0, 30.0),
    Fault.DISK_FULL: (5.0, 40.0),
    Fault.DATABASE_AWAY: (5.0, 40.0),
    Fault.CLOCK_JUMP: (5.0, 40.0),
}
SHARE = 0.45  # of the kinds, in the mean, a seed lets happen


class Faults:
    """The mix of one seed. Every draw comes from the seed."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.counts: Counter[Fault] = Counter()
        self.is_quiet = False
        self.last_at = 0.0
        self.time: Callable[[], float] = lambda: 0.0
        self.crash: Callable[..., None] = Process.kill
        share = random.choice((0.0, SHARE / 2, SHARE, SHARE, 2 * SHARE))
        self.on = frozenset(kind for kind in Fault if random.random() < share)
        self.rates = {k: _between(random, *RATES[k]) for k in RATES if k in self.on}
        self.periods = {k: _between(random, *PERIODS[k]) for k in PERIODS if k in self.on}

    def count(self, kind: Fault) -> None:
        """Note that it happened."""
        self.counts[kind] += 1
        self.last_at = self.time()

    def strikes(self, kind: Fault) -> bool:
        """Draw whether it happens now, and count it."""
        rate = self.rates.get(kind)
        if rate is None or self.is_quiet or self._random.random() >= rate:
            return False
        self.count(kind)
        return True

    def crash_at_disk(self, process: Process) -> None:
        """Perhaps end the process here; its machine goes with it, or not."""
        if self.strikes(Fault.CRASH_AT_DISK):
            self.crash(process, power=self._random.random() < 0.75)
            raise Crashed

    def crash_at_commit(self, process: Process) -> None:
        """Perhaps end the process here; its machine goes with it, or not."""
        if self.strikes(Fault.CRASH_AT_COMMIT):
            self.crash(process, power=self._random.random() < 0.5)
            raise Crashed


def _between(random: Random, least: float, largest: float) -> float:
    return math.exp(random.uniform(math.log(least), math.log(largest)))


def is_harmless(error: BaseException) -> bool:
    """Whether faults alone may end a call, or a process, with an error."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_harmless, error.exceptions))
    return isinstance(error, HARMLESS)
