"""What a gateway sends over data that differ by one example: only what is paid for differs."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.protocol import Refusal, RunState
from common.randomness import InsecureSeed
from common.tls import Role, TlsFiles
from gateway.egress_rules import EgressClass
from gateway.workshop import Workshop
from tests.at_work import SITE, at_work, is_settled, plan_for, settings
from tests.fakes import until
from tests.recorded import Record, RecordedClient
from tests.tapping import Tap, messages
from tests.tiny_task import Points, TinyTask

LABELS = ("no", "yes")
PATIENCE_S = 40.0
DP, SEALED = EgressClass.DP, EgressClass.SEALED
CHANGES = ("nothing", "one exchanged", "one more")


class Neighbours(TinyTask):
    """Sixty points, with one of them exchanged, or one more; `failing` quotes them.

    Args:
        change: what is different.
        held: the keyed digest of the data is held the same.
        telling: the task is named after the size of the data.
    """

    def __init__(self, change: str, *, held: bool = False, telling: bool = False) -> None:
        self.change, self.held, self.telling = change, held, telling
        self.failing = False

    @property
    def name(self) -> str:
        return f"tiny-{len(self.read(None, LABELS, Path()))}" if self.telling else "tiny"

    def build_model(self, labels):
        model = super().build_model(labels)
        for parameter in model.parameters():
            torch.nn.init.ones_(parameter)
        return model

    def read(self, data, labels, cache):
        points = Points("a", "train", 61 if self.change == "one more" else 60)
        first = Points("a", "train", 60)
        points.x[:60], points.y[:60] = first.x, first.y
        if self.change == "one exchanged":
            points.x[17] += np.float32(3.0)
            points.y[17] = 1 - points.y[17]
        whole = points.batch

        def batch(rows):
            if self.failing:
                raise ValueError(f"cannot read {points.x.sum()}")
            return whole(rows)

        points.batch = batch
        if self.held:
            points.content_digests = lambda: [bytes(32)]
        return points


@dataclass
class Story:
    """One gateway's life with an orchestrator of its own, and the record of it."""

    federation: object
    folder: Path
    tls: TlsFiles  # the same for all: what is accepted is signed with it
    task: Neighbours
    record: Record = field(default_factory=Record)
    through: str = ""  # an address other than the orchestrator's

    async def tell(self) -> Record:
        """Train, fail and refuse; start the process anew; train again."""
        async with self.working():
            trained = await self.start("a-trained")
            self.task.failing = True
            failed = await self.start("b-fails")
            self.task.failing = False
            refused = await self.start("c-refused", LABELS[:1])
        async with self.working():
            again = await self.start("d-trained")
        states = [each.state for each in (trained, failed, again)]
        assert states == [RunState.COMPLETED, RunState.FAILED, RunState.COMPLETED]
        assert isinstance(refused.gateways[0].answer, Refusal)
        return self.record

    @asynccontextmanager
    async def working(self):
        config = settings(self.folder, self.tls, LABELS)
        workshop = Workshop(SITE, config, self.task, InsecureSeed(7, SITE))
        address = self.through or self.federation.address
        async with (
            RecordedClient(address, self.tls, self.record) as client,
            at_work(workshop, client),
        ):
            yield

    async def start(self, run: str, labels=LABELS):
        # a server that stands still: every round begins with the same weights
        server = {"server": {"learning_rate": 1e-300}} if self.task.held else {}
        rounds = {"count": 2, "maximum": 2}
        plan, initial = plan_for(
            self.task, labels, units=60, rounds=rounds, local_steps=3, name=run, **server
        )
        operator = await self.federation.start(plan, run, initial)
        async with asyncio.timeout(PATIENCE_S):
            return await until(operator, is_settled, run)


@pytest.fixture
def tell(federation, tmp_path):
    """Tell the same story over other data, each time with an orchestrator of its own."""

    tls = federation.authority.issue(Role.GATEWAY, SITE)

    async def told(change: str, **task: bool) -> Record:
        folder = tmp_path / f"story {len(list(tmp_path.iterdir()))}"
        config = federation.config.model_copy(update={"state": folder / "orchestrator"})
        fresh = replace(federation, config=config)
        async with fresh.serving():
            return await Story(fresh, folder / "gateway", tls, Neighbours(change, **task)).tell()

    return told


def lengths(record: Record) -> list[tuple[str, int]]:
    """Return how long each message was but for looks at the audit log: their number is time's."""
    return [(method, len(data)) for method, data in record.sent if method != "GetCheckpoint"]


@pytest.mark.parametrize("change", CHANGES[1:])
async def test_what_is_not_paid_for_is_byte_identical_over_neighbouring_data(tell, change):
    one, other = await tell("nothing"), await tell(change)
    assert one.without(DP, SEALED) == other.without(DP, SEALED)
    assert lengths(one) == lengths(other)
    for kind in (DP, SEALED):  # the runs were over other data
        assert one.values(kind) != other.values(kind)
    for each in (one, other):  # at the audit log; each says again what was heard, and no more
        assert 0 in each.looks()
        assert set(each.looks()) <= {0, *each.places}
    assert Counter(method for method, _ in lengths(one)) == {
        "Register": 2,
        "GetLedgerHead": 2,
        "Watch": 2,
        "GetConfig": 4,
        "AcceptPlan": 4,
        "FetchWeights": 6,
        "SubmitUpdate": 10,  # four updates of two messages, two declines
    }


@pytest.mark.parametrize("change", CHANGES[1:])
async def test_only_a_keyed_digest_brings_the_data_into_the_ledgers_head(tell, change):
    """With that held, and the models that rounds begin with, the heads are the same too."""
    one, other = await tell("nothing", held=True), await tell(change, held=True)
    assert one.without(DP) == other.without(DP)
    assert one.values(SEALED) == other.values(SEALED)
    assert one.values(DP) != other.values(DP)


async def test_a_row_count_in_a_name_is_seen(tell):
    """The comparison can fail: this task is named after the size of its data."""
    one, other = await tell("nothing", telling=True), await tell("one more", telling=True)
    assert one.without(DP, SEALED) != other.without(DP, SEALED)


async def test_the_tap_sees_what_the_guard_lets_through(federation, tmp_path):
    """Message for message: so nothing reaches the wire beside the guard."""
    tls = federation.authority.issue(Role.GATEWAY, SITE)
    async with federation.serving():
        tap = Tap(
            federation.address,
            federation.authority.issue(Role.ORCHESTRATOR, "orchestrator"),
            tls,
        )
        async with tap:
            story = Story(federation, tmp_path / "gateway", tls, Neighbours("nothing"))
            story.through = tap.address
            record = await story.tell()
    on_the_wire = [message for raw in tap.connections() for message in messages(raw)]
    sent, carried = Counter(data for _, data in record.sent), Counter(on_the_wire)
    assert carried - sent == Counter()
    assert (sent - carried).total() <= 1  # the story's end may cut the last call off before it left
    assert len(lengths(record)) == 30
