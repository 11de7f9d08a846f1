"""A clock that tests move, and gateways that compute instead of training; no other doubles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from cli.operator_client import OperatorClient
from common.client import OrchestratorClient
from common.hyperparameters import Hyperparameters
from common.ids import RunId, WeightsId
from common.plan import Participant, Plan, Privacy, Rounds, ServerOptimizer, TaskSpec
from common.protocol import (
    PROTOCOL_VERSION,
    Body,
    Chunk,
    Effective,
    Receipt,
    Review,
    RunNews,
    RunStatus,
    Stop,
    Train,
    UpdateHeader,
    UpdateKey,
    Versions,
)
from common.transfer import Receiver, chunks_of, digest_of
from common.weights import Layout, Weights

LAYOUT = Layout.of({"bias": (3,), "kernel": (4, 3)})
INITIAL = Weights(LAYOUT, np.linspace(-1.0, 1.0, LAYOUT.size).astype(np.float32))
TASK_DIGEST = "7" * 64
VERSIONS = Versions(PROTOCOL_VERSION, "0.1.0", {"toy": TASK_DIGEST})
HYPERPARAMETERS = Hyperparameters(
    learning_rate=0.1, clipping_norm=1.0, noise_multiplier=1.0, sampling_rate=0.1, local_steps=5
)
EFFECTIVE = Effective(HYPERPARAMETERS)


class FakeClock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self._now)

    async def sleep_until(self, deadline: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((deadline, woken))
        self.advance(0.0)
        await woken.wait()

    def advance(self, seconds: float) -> None:
        """Move on, and wake everyone whose time has come."""
        self._now += seconds
        due = [each for each in self._sleepers if each[0] <= self._now]
        self._sleepers = [each for each in self._sleepers if each[0] > self._now]
        for _, woken in due:
            woken.set()


def plan_of(*gateways: str, **changes: object) -> Plan:
    """Return a plan in which `gateways` declare 100, 200, … units; three rounds, all needed."""
    quorum = len(gateways)  # and no pause: a FakeClock would have to be moved
    rounds = Rounds(count=3, maximum=5, quorum=quorum, deadline_s=60.0, retry_pause_s=0.0)
    units = enumerate(gateways, 1)
    values: dict[str, object] = {
        "name": "toy",
        "task": TaskSpec(name="toy", digest=TASK_DIGEST, labels=("x",), layout=LAYOUT),
        "initial_weights": INITIAL.digest,
        "participants": tuple(Participant(gateway=g, declared_units=100 * n) for n, g in units),
        "rounds": rounds,
        "privacy": Privacy(delta=1e-5, target_epsilon=8.0),
        "hyperparameters": HYPERPARAMETERS,
        "server": ServerOptimizer(learning_rate=0.5, momentum=0.9, tail_average=0.7),
    }
    return Plan.model_validate({**values, **changes})


def difference(gateway: str, round_number: int, size: int = LAYOUT.size) -> NDArray[np.float32]:
    """Return what a fake gateway sends: the same for the same gateway and round."""
    generator = np.random.default_rng(crc32(f"{gateway} {round_number}".encode()))
    return generator.normal(scale=0.1, size=size).astype(np.float32)


async def chunks(data: bytes | memoryview, offset: int = 0) -> AsyncIterator[Chunk]:
    """Yield the chunks of `data`, as a stream."""
    for chunk in chunks_of(data, offset):
        yield chunk


@dataclass
class FakeGateway:
    """Does what Watch says; `seen` holds every word of it."""

    name: str
    client: OrchestratorClient
    update: Callable[[str, int], NDArray[np.float32]] = difference
    effective: Effective = EFFECTIVE
    seen: list[RunNews] = field(default_factory=list)

    async def follow(self, run_id: str) -> Stop:
        """Take part in a run that was started until it stops; return the last word."""
        lease = (await self.client.register(VERSIONS)).lease
        async with aclosing(self.client.watch(lease, [RunId(run_id)])) as stream:  # type: ignore[type-var]
            async for news in stream:
                self.seen.append(news)
                is_last = news.run_id == run_id and await self.take(news)
                if is_last and isinstance(news.instruction, Stop):
                    return news.instruction
        raise AssertionError("the stream ended before the run")

    async def take(self, news: RunNews) -> bool:
        """Do what `news` asks for; return whether it was the last word."""
        match news.instruction:
            case Review():
                await self.accept(news.run_id)
            case Train() as train:
                await self.fetch(train.weights)
                await self.send(news.run_id, train.round, train.weights.digest)
            case _:
                pass
        return isinstance(news.instruction, Stop)

    async def accept(self, run_id: str) -> None:
        config = await self.client.get_config(RunId(run_id))
        await self.client.accept_plan(RunId(run_id), config.plan_digest, self.effective)

    async def fetch(self, body: Body) -> memoryview:
        receiver = Receiver(body, limit=1 << 30)
        async for part in self.client.fetch_weights(body.digest, 0):
            if isinstance(part, Chunk):
                receiver.take(part)
        return receiver.finish()

    async def send(self, run_id: str, number: int, parent: WeightsId) -> Receipt:
        data = self.body(number)
        header = await self.header(run_id, number, parent, data)
        return await self.client.submit_update(header, chunks(data, header.body.offset))

    def body(self, number: int) -> bytes:
        return Weights(LAYOUT, self.update(self.name, number)).to_bytes()

    async def header(
        self, run_id: str, number: int, parent: WeightsId, data: bytes
    ) -> UpdateHeader:
        """Return the header of `data`, which goes on where an earlier transfer ended."""
        config = await self.client.get_config(RunId(run_id))
        key, digest = UpdateKey(RunId(run_id), number), digest_of(data)
        state = await self.client.get_upload(key, digest)
        body = Body(digest, len(data), len(data) if state.received else state.offset)
        return UpdateHeader(key, config.plan_digest, parent, body)


async def until(
    operator: OperatorClient, condition: Callable[[RunStatus], bool], run_id: str = "r"
) -> RunStatus:
    """Return the first state of a run that fulfils `condition`."""
    async with aclosing(operator.watch_run(RunId(run_id))) as states:
        async for status, _ in states:
            if condition(status):
                return status
    raise AssertionError("the run ended before that")
