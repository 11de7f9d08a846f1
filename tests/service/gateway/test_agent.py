"""The agent against orchestrators that lie, hurry or ask too much: nothing is read or charged."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from common.audit import Head, Sealed, sign
from common.countersignature import countersign
from common.errors import UnavailableError
from common.hyperparameters import Overrides
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.plan import Plan
from common.protocol import (
    Body,
    Config,
    Countersignature,
    Decline,
    Effective,
    LedgerHead,
    Receipt,
    Refusal,
    RefusalReason,
    Registration,
    Review,
    RunNews,
    Stop,
    StopReason,
    Train,
    UploadState,
    Versions,
    Wait,
    WaitReason,
)
from common.randomness import InsecureSeed
from common.retry import Backoff
from common.tls import TlsFiles
from common.transfer import chunks_of
from common.wire import plan_id, plan_to_bytes
from gateway.agent import Agent, Superseded
from gateway.charges import LedgerUnreadable
from gateway.config import GatewayConfig, TaskChoice
from gateway.countersignatures import CountersignatureForged, OrchestratorKeyChanged
from gateway.policy import Accepted, Policy
from gateway.workshop import Workshop
from tasks.plan_file import complete
from tasks.task import DataConfig
from tests.signing import NOT_READ, TRUST, signed
from tests.tiny_task import TASK, TinyTask
from tests.tmpfs import small_disk

RUN = RunId("run")
LABELS = ("no", "yes")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
END = Stop(StopReason.SUPERSEDED)
SPECIMENS = 3  # of the tiny task: its model is checked on them before any round


class WatchedTask(TinyTask):
    """Counts how often the data are read; fails with `error` where one is given."""

    def __init__(self) -> None:
        self.reads = 0
        self.error: Exception | None = None
        self.broken: Exception | None = None  # while reading

    def read(self, data, labels, cache):
        self.reads += 1
        if self.broken is not None:
            raise self.broken
        return super().read(data, labels, cache)

    def loss(self, model, batch):
        if self.error is not None and len(batch[0]) > SPECIMENS:
            raise self.error
        return super().loss(model, batch)


class ScriptedOrchestrator:
    """Says what the test tells it to say, then that the gateway is superseded."""

    def __init__(self, plan: Plan, weights: bytes, *news: RunNews) -> None:
        self.plan = plan_to_bytes(plan)
        self.digest = plan_id(self.plan)
        self.weights = weights
        self.news = news
        self.answers: list[Effective | Refusal] = []
        self.declined: list[Decline] = []
        self.looks: list[int] = []  # after which record of the audit log
        self.updates: list[bytes] = []
        self.settled = asyncio.Event()
        self.countersigned: Countersignature | None = None
        self.key, self.signs_for = KEY, GatewayId("a")

    async def register(self, versions: Versions) -> Registration:
        return Registration(GatewayId("a"), "lease", versions, 1 << 20)

    async def get_config(self, run_id: RunId) -> Config:
        given = complete_plan()[0].hyperparameters
        return Config(run_id, self.plan, self.digest, given, signed(run_id, self.plan))

    async def accept_plan(self, run_id, plan_digest, answer) -> None:
        self.answers.append(answer)

    async def watch(self, lease, kept_runs):
        for news in self.news:
            yield news
            await asyncio.wait_for(self.settled.wait(), 20)
            self.settled.clear()
        yield RunNews(RunId(""), 0, END)

    async def fetch_weights(self, digest, offset):
        yield Body(digest, len(self.weights))
        for chunk in chunks_of(self.weights, offset):
            yield chunk

    async def get_upload(self, key, digest) -> UploadState:
        return UploadState(0, received=False)

    async def submit_update(self, header, chunks) -> Receipt:
        self.updates.append(b"".join([bytes(chunk.data) async for chunk in chunks]))
        signed = countersign(self.key, "clinics", self.signs_for, header.ledger_head)
        return Receipt(header.key, header.body.digest, signed)

    async def get_ledger_head(self, *, insecure_deterministic) -> Countersignature | None:
        return self.countersigned

    async def get_checkpoint(self, after: int) -> Sealed:
        self.looks.append(after)
        return Sealed(sign(self.key, "clinics", Head(1, "1" * 64), "today"), bytes(32))

    async def decline(self, decline: Decline) -> None:
        self.declined.append(decline)


def complete_plan(**changes):
    """One gateway, two rounds."""
    fields = {
        "name": "small",
        "rounds": {"count": 2, "quorum": 1, "deadline_s": 10.0},
        "privacy": {"delta": 1e-5, "target_epsilon": 8.0},
        "hyperparameters": {
            "learning_rate": 1.0,
            "clipping_norm": 1.0,
            "noise_multiplier": 4.0,
            "sampling_rate": 0.5,
            "local_steps": 1,
        },
        "participants": [{"gateway": "a", "declared_units": 60}],
    }
    return complete({**fields, **changes}, TASK, LABELS)


@pytest.fixture
def task():
    return WatchedTask()


def workshop_in(state: Path, task: TinyTask) -> Workshop:
    """Return a gateway with a budget of 8, whose data carry the labels no and yes."""
    config = GatewayConfig(
        address="localhost:1",
        state=state,
        data_set="points",
        tls=TlsFiles(authority=Path("x"), certificate=Path("x"), key=Path("x")),
        task=TaskChoice(reference="unused", labels=LABELS),
        data=DataConfig(corpus="points", site="a"),
        policy=Policy(epsilon_budget=8.0),
        trust=NOT_READ,
        hyperparameters=Overrides(),
    )
    return Workshop(GatewayId("a"), config, task, None)


@pytest.fixture
def workshop(tmp_path, task):
    made = workshop_in(tmp_path, task)
    yield made
    made.close()


async def run(
    workshop: Workshop, orchestrator: ScriptedOrchestrator, ends: type[Exception] = Superseded
) -> None:
    """Let the agent work until every word has been worked on, or until it ends by itself."""
    agent = Agent(workshop, orchestrator, Backoff(0.01, 0.01), lambda _: None, TRUST)
    act = agent._act

    async def acting(news: RunNews) -> None:
        try:
            await act(news)
        finally:
            orchestrator.settled.set()

    agent._act = acting
    with pytest.raises(ends):
        await agent.run()


def review(digest: PlanId) -> RunNews:
    return RunNews(RUN, 0, Review(digest))


def train(initial, remaining_s: float = 9.0) -> RunNews:
    body = Body(WeightsId(initial.digest), len(initial.to_bytes()))
    return RunNews(RUN, 0, Train(1, body, remaining_s))


async def test_a_plan_that_is_taken_is_trained_and_sent(workshop):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    with capture_logs() as logged:
        await run(workshop, fake)
    (accepted,) = (each for each in logged if each["event"] == "plan_accepted")
    assert (accepted["unit"], accepted["relation"]) == ("example", "add_or_remove_one")
    assert accepted["delta"] == plan.privacy.delta
    assert isinstance(fake.answers[0], Effective)
    assert [len(update) for update in fake.updates] == [plan.task.layout.byte_length]
    assert workshop.kept_runs() == (RUN,)


async def test_a_plan_of_a_unit_that_the_data_lack_is_declined_and_nothing_more_is_said(workshop):
    privacy = {"unit": "person", "delta": 1e-5, "target_epsilon": 8.0}
    plan, initial = complete_plan(privacy=privacy)
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    await run(workshop, fake)
    refusal = Refusal(RefusalReason.DATA_UNFIT)
    assert fake.answers == [refusal]
    assert [declined.refusal for declined in fake.declined] == [refusal]
    assert not fake.updates
    assert not workshop.kept_runs()


async def test_a_plan_over_the_budget_is_refused_before_any_data_are_read(workshop, task):
    plan, initial = complete_plan(
        privacy={"delta": 1e-5, "target_epsilon": 100.0},
        hyperparameters={
            **complete_plan()[0].hyperparameters.model_dump(),
            "noise_multiplier": 0.5,
        },
    )
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    await run(workshop, fake)
    assert fake.answers[0].reason is RefusalReason.EPSILON_BUDGET
    assert task.reads == 0
    assert [decline.refusal.reason for decline in fake.declined] == [RefusalReason.EPSILON_BUDGET]
    assert fake.updates == []


@pytest.mark.parametrize(
    "error", [LedgerUnreadable("away"), OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "failed")]
)
async def test_a_plan_is_answered_once_ledger_and_data_can_be_read_again(workshop, task, error):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest))
    read, away, answered = task.read, [error] * 2, asyncio.Event()

    def reading(*data):
        if away:
            raise away.pop()
        return read(*data)

    async def accept_plan(_run, _digest, answer) -> None:
        fake.answers.append(answer)
        answered.set()

    task.read, fake.accept_plan = reading, accept_plan
    agent = Agent(workshop, fake, Backoff(0.01, 0.01), lambda _: None, TRUST)
    working = asyncio.create_task(agent.run())
    await asyncio.wait_for(answered.wait(), 20)
    working.cancel()
    await asyncio.wait([working])
    assert not away
    assert isinstance(fake.answers[0], Effective)


async def test_a_round_that_a_really_full_disk_cannot_charge_is_trained_once_there_is_room(
    tmp_path, task
):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    orders = (review(digest), train(initial), train(initial))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), *orders)
    accept_plan, decline = fake.accept_plan, fake.decline
    with small_disk(tmp_path / "small") as small:

        async def accepted(*answer) -> None:
            await accept_plan(*answer)
            small.fill()

        async def declined(why: Decline) -> None:
            await decline(why)
            small.make_room()

        fake.accept_plan, fake.decline = accepted, declined
        workshop = workshop_in(small.folder, task)
        await run(workshop, fake)
        workshop.close()
    assert [each.refusal.reason for each in fake.declined] == [RefusalReason.FAILED]
    assert len(fake.updates) == 1


async def test_a_plan_without_a_stated_label_is_refused_before_any_data_are_read(workshop, task):
    plan, initial = complete_plan()
    fewer = plan.model_copy(update={"task": plan.task.model_copy(update={"labels": ("no",)})})
    digest = plan_id(plan_to_bytes(fewer))
    fake = ScriptedOrchestrator(fewer, initial.to_bytes(), review(digest))
    await run(workshop, fake)
    assert fake.answers == [Refusal(RefusalReason.TASK_MISMATCH, "task.labels")]
    assert task.reads == 0


async def test_another_plan_than_the_one_offered_is_not_answered(workshop, task):
    plan, initial = complete_plan()
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(PlanId("0" * 64)))
    await run(workshop, fake)
    assert fake.answers == []
    assert task.reads == 0


async def test_a_round_whose_time_is_over_is_not_charged(workshop):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    late = train(initial, remaining_s=0.0)
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), late)
    await run(workshop, fake)
    assert fake.updates == []
    assert workshop.kept_runs() == ()


async def test_weights_longer_than_the_plan_allows_are_not_taken(workshop):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    endless = RunNews(RUN, 0, Train(1, Body(initial.digest, 1 << 40), 9.0))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), endless)
    await run(workshop, fake)
    assert [decline.refusal.reason for decline in fake.declined] == [RefusalReason.FAILED]
    assert workshop.kept_runs() == ()


class Spilling(ValueError):
    """Holds a sentence where our own errors have a reason code."""

    def __init__(self, reason) -> None:
        super().__init__("Mrs Kanarienvogel has gout")
        self.reason = reason


@pytest.mark.parametrize(
    "error",
    [
        UnicodeDecodeError("utf-8", b"Kanarienvogel \xff", 14, 15, "Kanarienvogel"),
        Spilling("Mrs Kanarienvogel has gout"),
        Spilling(19_450_508),
        Spilling("equivocation"),
    ],
)
async def test_a_round_that_fails_is_declined_without_a_word_of_why(workshop, task, error):
    task.error = error
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    await run(workshop, fake)
    (declined,) = fake.declined
    assert declined.refusal == Refusal(RefusalReason.FAILED)
    assert type(declined.refusal.reason) is RefusalReason


@pytest.mark.parametrize(
    "error",
    [
        KeyError("Kanarienvogel"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "gout"),
        FileNotFoundError(errno.ENOENT, "No such file", "gout.tsv"),
    ],
)
async def test_data_that_cannot_be_read_refuse_the_plan_without_a_word_of_why(
    workshop, task, error
):
    task.broken = error
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    await run(workshop, fake)
    assert fake.answers == [Refusal(RefusalReason.FAILED)]
    assert [each.refusal for each in fake.declined] == fake.answers


async def test_a_paused_gateway_sends_again_what_was_begun_and_begins_nothing_else(workshop, task):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    first = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    await run(workshop, first)
    workshop.pause.turn_on(datetime(2030, 1, 1, tzinfo=UTC))
    second = RunNews(RUN, 0, replace(train(initial).instruction, round=2))
    again = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial), second)
    await run(workshop, again)
    assert again.updates == first.updates
    assert [each.refusal for each in again.declined] == [Refusal(RefusalReason.PAUSED)]
    assert [each.key.round for each in again.declined] == [2]


async def test_a_ledger_that_lacks_what_was_countersigned_takes_part_in_nothing(workshop, task):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    fake.countersigned = countersign(KEY, "clinics", GatewayId("a"), LedgerHead(3, "3" * 64))
    await run(workshop, fake)
    assert fake.answers == [Refusal(RefusalReason.LEDGER_ROLLED_BACK)]
    assert [each.refusal for each in fake.declined] == fake.answers
    assert (task.reads, fake.updates, workshop.kept_runs()) == (0, [], ())


async def test_a_head_learned_after_a_plan_was_taken_is_obeyed_too(workshop):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    await run(workshop, ScriptedOrchestrator(plan, initial.to_bytes(), review(digest)))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), train(initial))
    fake.countersigned = countersign(KEY, "clinics", GatewayId("a"), LedgerHead(3, "3" * 64))
    await run(workshop, fake)
    assert [each.refusal.reason for each in fake.declined] == [RefusalReason.LEDGER_ROLLED_BACK]
    assert workshop.kept_runs() == ()


@pytest.mark.parametrize(
    ("key", "signs_for", "error"),
    [
        (OTHER_KEY, GatewayId("a"), OrchestratorKeyChanged),
        (KEY, GatewayId("b"), CountersignatureForged),
    ],
)
async def test_nothing_more_is_done_for_an_orchestrator_that_signs_falsely(
    workshop, key, signs_for, error
):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    first = countersign(KEY, "clinics", GatewayId("a"), workshop.ledger_head)
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    fake.countersigned, fake.key, fake.signs_for = first, key, signs_for
    await run(workshop, fake, error)
    assert len(fake.updates) == 1
    fake.countersigned = countersign(key, "clinics", signs_for, workshop.ledger_head)
    await run(workshop, fake, error)
    assert len(fake.updates) == 1


@pytest.mark.parametrize(
    ("reason", "kept"),
    [(StopReason.UNKNOWN_RUN, (RUN,)), (StopReason.CANCELLED, ())],
)
async def test_only_a_run_that_has_ended_is_forgotten(workshop, reason, kept):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    stop = RunNews(RUN, 0, Stop(reason))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial), stop)
    await run(workshop, fake)
    assert workshop.kept_runs() == kept


def test_a_seeded_workshop_keeps_its_updates_apart(tmp_path, task, workshop):
    seeded = Workshop(GatewayId("a"), workshop._config, task, InsecureSeed(1, GatewayId("a")))
    seeded.close()
    assert (tmp_path / "updates").exists()
    assert (tmp_path / "insecure-updates").exists()


def test_of_a_run_that_has_ended_nothing_stays_in_memory_while_another_goes_on(workshop):
    plan, _ = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    other = RunId("other")
    for run_id in (RUN, other):
        assert isinstance(workshop.review(run_id, plan, digest), Accepted)
    gateway = workshop.gateway(RUN)
    workshop.forget(RUN)
    assert workshop.gateway(other) is gateway
    assert list(gateway._runs) == [other]
    workshop.forget(other)
    assert not workshop._gateways


WAIT = Wait(WaitReason.OTHERS)


async def test_the_audit_log_is_looked_at_when_connected_and_after_each_published_round(
    workshop, monkeypatch
):
    monkeypatch.setattr("gateway.record_watch.BETWEEN_LOOKS_S", 0.0)
    plan, initial = complete_plan()
    words = [RunNews(RUN, published, WAIT) for published in (0, 1, 1, 2)]
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), *words)
    await run(workshop, fake)
    assert fake.looks == [0, 1, 1]  # nothing was seen at first, record 1 since
    assert workshop.record_head.sequence == 1


async def test_rounds_that_follow_at_once_share_one_look_at_the_audit_log(workshop):
    plan, initial = complete_plan()
    words = [RunNews(RUN, published, WAIT) for published in (1, 2, 3, 4)]
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), *words)
    await run(workshop, fake)
    assert fake.looks == [0, 1]  # when connected, and after the first of them


async def test_another_story_of_the_audit_log_is_said_loudly_and_training_goes_on(workshop):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))
    workshop.see_record(Sealed(sign(KEY, "clinics", Head(1, "2" * 64), "before"), bytes(32)))
    with capture_logs() as logged:
        await run(workshop, fake)
    (told,) = (e for e in logged if e["event"] == "audit_log_tells_another_story")
    assert (told["log_level"], "does not follow" in told["why"]) == ("error", True)
    assert len(fake.updates) == 1
    assert workshop.record_head.hash == "2" * 64


async def test_an_orchestrator_without_an_audit_log_is_worked_for_all_the_same(workshop):
    plan, initial = complete_plan()
    digest = plan_id(plan_to_bytes(plan))
    fake = ScriptedOrchestrator(plan, initial.to_bytes(), review(digest), train(initial))

    async def unimplemented(_after: int) -> Sealed:
        raise UnavailableError("Method not found!")

    fake.get_checkpoint = unimplemented
    await run(workshop, fake)
    assert len(fake.updates) == 1
