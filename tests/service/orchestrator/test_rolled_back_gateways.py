"""Gateways whose ledger was restored or forked, against a real orchestrator on loopback."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.accounting import PrivacyEvent, epsilon
from common.ids import RunId, WeightsId
from common.protocol import RefusalReason, RunState, RunStatus
from common.tls import Role, TlsFiles
from gateway.charges import RoundCharge
from gateway.ledger import Ledger, epsilon_of
from gateway.ledger_desk import Desk, take_in
from gateway.merging import Assumption, Statement
from gateway.workshop import Workshop
from tests.at_work import HOW, SITE, at_work, is_settled, plan_for, refusal, settings
from tests.fakes import until
from tests.tiny_task import TinyTask

LABELS = ("no", "yes")
ROUNDS, DELTA = 6, 1e-5
EVENT = PrivacyEvent(HOW["noise_multiplier"], HOW["sampling_rate"], HOW["local_steps"])
PATIENCE_S = 30.0


class Photographed(TinyTask):
    """Calls `on_batch` whenever a batch is read: its round is charged, its update not yet sent."""

    def __init__(self) -> None:
        self.on_batch: Callable[[], None] = lambda: None
        self.batches = 0

    def read(self, data, labels, cache):
        points = super().read(data, labels, cache)
        whole = points.batch

        def batch(rows):
            self.batches += 1
            self.on_batch()
            return whole(rows)

        points.batch = batch
        return points


def photograph(state: Path, image: Path) -> None:
    """Copy the ledger in a gateway's folder, its write-ahead log included, into another folder."""
    image.mkdir(parents=True)
    with (
        closing(sqlite3.connect(state / "ledger.sqlite")) as source,
        closing(sqlite3.connect(image / "ledger.sqlite")) as copy,
    ):
        source.backup(copy)


@dataclass
class Site:
    """One gateway's certificate; its process may run over this folder or that."""

    federation: object
    tls: TlsFiles
    task: Photographed = field(default_factory=Photographed)

    def workshop(self, state: Path) -> Workshop:
        return Workshop(SITE, settings(state, self.tls, LABELS), self.task, None)

    @asynccontextmanager
    async def working(self, state: Path) -> AsyncIterator[None]:
        """Have a gateway's process work over `state` inside the block."""
        workshop = self.workshop(state)
        async with at_work(workshop, await self.federation.client(SITE, self.tls)):
            yield

    async def takes_part(self, state: Path, run: str, rounds: int = ROUNDS) -> RunStatus:
        """Start a run, work over `state`; return how it ended, or that its plan was refused."""
        await self.start(run, rounds)
        async with self.working(state), asyncio.timeout(PATIENCE_S):
            return await until(self.operator, is_settled, run)

    async def start(self, run: str, rounds: int) -> None:
        plan, initial = plan_for(self.task, LABELS, units=60, rounds={"count": rounds})
        self.operator = await self.federation.start(plan, run, initial)


def charges(state: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(state / "ledger.sqlite")) as other:
        return other.execute("select run, round from charges order by sequence").fetchall()


@pytest.fixture
async def site(federation):
    async with federation.serving() as server:
        federation.server = server
        yield Site(federation, federation.authority.issue(Role.GATEWAY, SITE))


async def test_every_earlier_image_of_a_ledger_is_refused(site, tmp_path):
    state, images = tmp_path / "now", tmp_path / "images"
    site.workshop(state).close()
    photograph(state, images / "0")
    site.task.on_batch = lambda: photograph(state, images / str(len(charges(state))))
    ended = await site.takes_part(state, "first")
    assert (ended.state, refusal(ended)) == (RunState.COMPLETED, None)
    assert len(charges(state)) == ROUNDS
    site.task.on_batch = lambda: None
    read = site.task.batches
    answers = []
    for number in range(ROUNDS):
        image = images / str(number)
        assert len(charges(image)) == number
        answers.append(refusal(await site.takes_part(image, f"again-{number}")))
        assert len(charges(image)) == number
    assert answers == [RefusalReason.LEDGER_ROLLED_BACK] * ROUNDS
    assert site.task.batches == read, "no example was read"


async def test_the_newest_image_goes_on(site, tmp_path):
    state = tmp_path / "now"
    await site.takes_part(state, "first")
    photograph(state, tmp_path / "image")
    ended = await site.takes_part(tmp_path / "image", "second", 2)
    assert ended.state is RunState.COMPLETED
    assert len(charges(tmp_path / "image")) == ROUNDS + 2


async def test_a_ledger_that_was_rolled_back_in_mid_run_declines_its_rounds(site, tmp_path):
    state, image = tmp_path / "now", tmp_path / "image"
    site.workshop(state).close()
    site.task.on_batch = lambda: image.exists() or photograph(state, image)
    await site.start("first", ROUNDS)
    async with site.working(state), asyncio.timeout(PATIENCE_S):
        await until(site.operator, lambda s: s.published_round >= 2, "first")
    spent = charges(image)
    async with site.working(image), asyncio.timeout(PATIENCE_S):
        status = await until(site.operator, lambda s: s.has_ended, "first")
    assert status.state is RunState.FAILED
    assert charges(image) == spent == [("first", 1)]
    journal = site.federation.config.state / "journal.db"
    with closing(sqlite3.connect(journal)) as other:
        rows = other.execute("select payload from events where kind = 'GatewayDeclined'").fetchall()
    reasons = {json.loads(payload)["refusal"]["reason"] for (payload,) in rows}
    assert reasons == {"ledger_rolled_back"}


def charge_alone(state: Path, run: str, *numbers: int) -> None:
    """Charge more rounds of a run without the orchestrator's knowledge, as a forked copy would."""
    ledger = Ledger.open(f"sqlite:///{state / 'ledger.sqlite'}")
    terms = ledger.run(RunId(run))
    for number in numbers:
        ledger.charge(RoundCharge(terms, number, WeightsId("f" * 64), EVENT))
    ledger.close()


async def test_a_fork_is_refused_until_it_is_merged_and_then_costs_the_union(site, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    await site.takes_part(one, "first", 3)
    photograph(one, other)
    charge_alone(other, "first", 4, 5)
    assert (await site.takes_part(one, "second", 4)).state is RunState.COMPLETED
    status = await site.takes_part(other, "third", 2)
    assert refusal(status) is RefusalReason.LEDGER_ROLLED_BACK
    taken = take_in(Desk(other, None), SITE, one / "ledger.sqlite", Statement("points"))
    assert taken.taken == 4
    ended = await site.takes_part(other, "fourth", 2)
    assert ended.state is RunState.COMPLETED
    ledger = Ledger.open(f"sqlite:///{other / 'ledger.sqlite'}")
    union = [EVENT] * (3 + 2 + 4 + 2)
    assert epsilon_of(ledger, "points", DELTA) == epsilon(union, DELTA)
    ledger.close()
    again = await site.takes_part(one, "fifth", 1)
    assert refusal(again) is RefusalReason.LEDGER_ROLLED_BACK, "the merged branch is the newest now"


async def test_a_backup_alone_goes_on_once_what_is_missing_is_stated(site, tmp_path):
    state, backup = tmp_path / "now", tmp_path / "backup"
    await site.takes_part(state, "first", 2)
    photograph(state, backup)
    await site.takes_part(state, "second", 3)
    assert refusal(await site.takes_part(backup, "third")) is RefusalReason.LEDGER_ROLLED_BACK
    each = Statement("points", (Assumption(RunId("second"), 3),), each_round=EVENT)
    take_in(Desk(backup, None), SITE, None, each)
    assert (await site.takes_part(backup, "fourth", 1)).state is RunState.COMPLETED
    ledger = Ledger.open(f"sqlite:///{backup / 'ledger.sqlite'}")
    assert ledger.events("points") == (EVENT,) * 6
    ledger.close()


async def test_a_gateway_proves_afterwards_what_was_countersigned(site, tmp_path):
    state = tmp_path / "now"
    await site.takes_part(state, "first", 2)
    ledger = Ledger.open(f"sqlite:///{state / 'ledger.sqlite'}")
    given = ledger.countersigned()
    assert given.head == ledger.head
    assert given.federation == "acme"
    ledger.close()
    newest = site.federation.server.orchestrator.ledger_heads.newest(
        SITE, insecure_deterministic=False
    )
    assert newest == given
