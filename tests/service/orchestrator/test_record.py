"""What goes on record: who did what, with the event that it belongs to, through every restart."""

from __future__ import annotations

import asyncio
import json

import pytest
import tomli_w
from sqlalchemy import text
from typer.testing import CliRunner

from cli.audit_client import AuditClient
from cli.main import app
from common.audit import EMPTY, ORCHESTRATOR, Action, Entry, Outcome, check_chain
from common.errors import FederationError, RequestError
from common.ids import GatewayId, RunId
from common.protocol import Refusal, RefusalReason, ScoreSet
from common.tls import Role
from common.wire import plan_id, plan_to_bytes
from orchestrator.audit_log import SEAL_S, SEALED_EVERY, AuditLogDamaged
from orchestrator.database import AUDIT_RECORDS
from orchestrator.events import PlanAccepted, RoundAbandoned, RoundOpened, RunStarted
from orchestrator.fencing import Fence, JournalFailed
from orchestrator.journal import Journal
from orchestrator.live_runs import LiveRuns
from orchestrator.refusals import WINDOW_S, Refusals
from tests.fakes import EFFECTIVE, INITIAL, FakeClock, plan_of
from tests.on_record import PUBLIC_KEY, audit_log, record_of
from tests.signing import order

OLGA, NORTH = "fed://acme/operator/olga", "fed://acme/gateway/a"
ENTRY = Entry(OLGA, Action.START_RUN, {"run": "r"})
PLAN = plan_of("a")
PLAN_BYTES = plan_to_bytes(PLAN)


def actions(log, after: int = 0) -> list[tuple[Action, str, Outcome]]:
    records = [line.record for line in log.records(after)]
    return [(record.action, record.actor, record.outcome) for record in records]


def plan_of_two():
    return plan_id(plan_to_bytes(plan_of("a", "b")))


async def auditor(federation, role: Role = Role.AUDITOR) -> AuditClient:
    files = federation.authority.issue(role, "aud")
    return await federation.clients.enter_async_context(AuditClient(federation.address, files))


async def test_a_run_is_on_record_from_its_start_to_its_end(federation):
    async with federation.serving() as server:
        operator = await federation.start(PLAN)
        (gateway,) = await federation.gateways("a")
        await gateway.follow("r")
        scores = ScoreSet(3, "dev", INITIAL.digest, f1=0.5, precision=0.5, recall=0.5, support=7)
        await operator.record_scores(RunId("r"), scores)
        found = actions(server.orchestrator.audit)
    done = Outcome.DONE
    rounds = [
        (Action.OPEN_ROUND, ORCHESTRATOR, done),
        (Action.PUBLISH_ROUND, ORCHESTRATOR, done),
    ]
    assert found == [
        (Action.START_PROCESS, ORCHESTRATOR, done),
        (Action.UPLOAD_WEIGHTS, OLGA, done),
        (Action.START_RUN, OLGA, done),
        (Action.ANSWER_PLAN, NORTH, done),
        *(3 * rounds),
        (Action.END_RUN, ORCHESTRATOR, done),
        (Action.RECORD_SCORES, OLGA, done),
    ]


async def test_a_cancelled_run_is_on_record_once_however_often_it_is_cancelled(federation):
    async with federation.serving() as server:
        operator = await federation.start(PLAN)
        await operator.cancel_run(RunId("r"))
        await operator.cancel_run(RunId("r"))
        found = actions(server.orchestrator.audit)
    assert found.count((Action.CANCEL_RUN, OLGA, Outcome.DONE)) == 1


async def test_what_an_operator_is_refused_is_on_record_by_its_reason(federation):
    async with federation.serving() as server:
        operator = await federation.start(PLAN)
        with pytest.raises(FederationError):
            await operator.start_run(*order("r", plan_of("b")))
        last = server.orchestrator.audit.records(0)[-1].record
    assert (last.actor, last.action, last.outcome) == (OLGA, Action.START_RUN, Outcome.REFUSED)
    assert last.facts == {"run": "r", "reason": "RunExists"}


async def test_a_gateway_that_refuses_again_and_again_fills_no_journal(federation):
    async with federation.serving() as server:
        await federation.start(plan_of("a", "b"))
        seen = server.orchestrator
        for reason in (
            RefusalReason.EPSILON_BUDGET,
            RefusalReason.DATA_UNFIT,
            RefusalReason.EPSILON_BUDGET,
        ):
            refusal = Refusal(reason)
            seen.accept_plan(GatewayId("a"), RunId("r"), plan_of_two(), refusal)
        found = actions(seen.audit)
    assert [each for each in found if each[0] is Action.ANSWER_PLAN] == [
        (Action.ANSWER_PLAN, NORTH, Outcome.REFUSED)
    ]


async def test_a_refused_update_is_on_record_by_its_reason_and_without_its_data(federation):
    async with federation.serving() as server:
        await federation.start(PLAN)
        (gateway,) = await federation.gateways("a")
        await gateway.accept("r")
        gateway.update = lambda name, number: 1e6 + gateway_values()
        with pytest.raises(RequestError):
            await gateway.send("r", 1, INITIAL.digest)
        records = [line.record for line in server.orchestrator.audit.records(0)]
    (refused,) = (each for each in records if each.action is Action.SUBMIT_UPDATE)
    assert (refused.actor, refused.outcome) == (NORTH, Outcome.REFUSED)
    assert set(refused.facts) == {"run", "round", "update", "reason"}
    assert refused.facts["reason"] == "OutOfRange"


def gateway_values():
    return INITIAL.values * 0


async def test_a_caller_that_may_not_is_on_record_with_the_method(federation):
    async with federation.serving() as server:
        await federation.start(PLAN)
        client = await auditor(federation, Role.OPERATOR)
        with pytest.raises(RequestError):
            await client.checkpoint()
        last = server.orchestrator.audit.records(0)[-1].record
    assert (last.actor, last.action) == ("fed://acme/operator/aud", Action.CALL)
    assert last.facts == {
        "method": "/federation.v1.AuditService/GetCheckpoint",
        "reason": "RoleRefused",
    }


async def test_a_restart_goes_on_with_the_chain(federation):
    for number in (1, 2, 3):
        async with federation.serving() as server:
            lines = server.orchestrator.audit.records(0)
            assert check_chain(lines).sequence == len(lines) == number
    assert [line.record.action for line in lines] == 3 * [Action.START_PROCESS]


def test_a_standby_goes_on_with_the_chain_and_the_older_one_cannot(engine):
    older = audit_log(Fence(engine))
    older.record(ENTRY)
    newer = audit_log(Fence(engine))
    newer.record(ENTRY)
    with pytest.raises(FederationError, match="took over"):
        older.record(ENTRY)
    assert check_chain(newer.records(0)).sequence == 2


def test_records_are_read_page_by_page(engine, monkeypatch):
    monkeypatch.setattr("orchestrator.audit_log.PAGE", 3)
    log = audit_log(Fence(engine))
    log.record(*[ENTRY] * 7)
    head = EMPTY
    pages = []
    while lines := log.records(head.sequence):
        head = check_chain(lines, head)
        pages.append(len(lines))
    assert (head.sequence, pages) == (7, [3, 3, 1])


def test_after_every_thousand_records_comes_a_checkpoint_by_itself(engine):
    log = audit_log(Fence(engine))
    log.record(*[ENTRY] * (SEALED_EVERY + 5))
    (checkpoint,) = log.checkpoints(0)
    assert checkpoint.head == log.records(SEALED_EVERY - 1)[0].head
    assert checkpoint.is_genuine()
    assert checkpoint.public_key == PUBLIC_KEY


def test_a_seal_is_made_once_and_covers_everything(engine):
    log = audit_log(Fence(engine))
    assert log.seal() is None
    log.record(ENTRY, ENTRY)
    first = log.seal()
    assert log.seal() == first
    assert first.head == check_chain(log.records(0))
    log.record(ENTRY)
    assert log.seal().sequence == 3
    assert [each.sequence for each in log.checkpoints(0)] == [2, 3]


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_nothing_is_signed_over_a_log_that_does_not_hold_what_was_signed(engine, damage):
    fence = Fence(engine)
    log = audit_log(fence)
    log.record(ENTRY, ENTRY)
    log.seal()
    with fence.writing() as connection:
        last = AUDIT_RECORDS.c.sequence == 2
        if damage == "cut":
            connection.execute(AUDIT_RECORDS.delete().where(last))
        else:
            connection.execute(AUDIT_RECORDS.update().where(last).values(hash="0" * 64))
    log.record(ENTRY)
    with pytest.raises(AuditLogDamaged, match=r"record 2 .* is not the one that was signed"):
        log.seal()


async def sealed(log, count: int) -> None:
    """Return once there are so many checkpoints."""
    for _ in range(10_000):
        if len(log.checkpoints(0)) >= count:
            return
        await asyncio.sleep(0)
    raise AssertionError("no checkpoint came")


async def test_time_seals_what_went_on_record(federation):
    async with federation.serving() as server:
        log = server.orchestrator.audit
        await federation.start(PLAN)
        federation.clock.advance(SEAL_S)
        await sealed(log, 1)
        assert log.checkpoints(0)[-1].head == check_chain(log.records(0))


@pytest.fixture
def journal(engine):
    return Journal(Fence(engine), FakeClock())


@pytest.fixture
def runs(journal):
    return LiveRuns(journal, record_of(journal), FakeClock())


def test_no_event_is_there_without_its_record(journal, runs):
    live = runs.create(RunId("r"), PLAN, PLAN_BYTES, plan_id(PLAN_BYTES), actor=OLGA)
    with journal._fence.writing() as connection:
        connection.execute(text("drop table audit_records"))
    with pytest.raises(JournalFailed):
        runs.record(live, PlanAccepted(GatewayId("a"), EFFECTIVE, 60.0))
    assert journal.run(RunId("r")).events == (RunStarted(60.0),)


def test_no_record_is_there_without_its_event(journal, runs):
    log = audit_log(journal._fence)
    live = runs.create(RunId("r"), PLAN, PLAN_BYTES, plan_id(PLAN_BYTES), actor=OLGA)
    journal.append(RunId("r"), 1, [PlanAccepted(GatewayId("a"), EFFECTIVE, 60.0)])
    with pytest.raises(JournalFailed):  # another event stands where this one would
        runs.record(live, PlanAccepted(GatewayId("a"), EFFECTIVE, 60.0))
    assert actions(log) == [(Action.START_RUN, OLGA, Outcome.DONE)]


def test_an_abandoned_round_is_on_record_with_its_reason(journal, runs):
    live = runs.create(RunId("r"), PLAN, PLAN_BYTES, plan_id(PLAN_BYTES))
    opened = RoundOpened(1, 1, INITIAL.digest, (GatewayId("a"),), 1, 60.0)
    runs.record(live, PlanAccepted(GatewayId("a"), EFFECTIVE, 60.0), opened)
    runs.record(live, RoundAbandoned("no reason"))
    last = audit_log(journal._fence).records(0)[-1].record
    assert last.action is Action.ABANDON_ROUND
    assert last.facts == {"run": "r", "round": 1, "attempt": 1, "reason": "no reason"}


def test_a_flood_of_refusals_is_counted_and_not_written(engine):
    clock, log = FakeClock(), audit_log(Fence(engine))
    refusals = Refusals(log, clock, of_one=2, of_all=3)
    for actor in (*["one"] * 50, "two", "three"):
        refusals.note(actor, Action.CALL, {"method": "/m"})
    assert [record.record.actor for record in log.records(0)] == ["one", "one", "two"]
    clock.advance(WINDOW_S)
    refusals.tell_withheld()
    refusals.note("one", Action.CALL, {"method": "/m"})
    told, again = (line.record for line in log.records(3))
    assert (told.actor, told.facts) == (ORCHESTRATOR, {"withheld": 49})
    assert again.actor == "one"


def test_of_a_callers_own_words_only_so_many_go_on_record(engine):
    log = audit_log(Fence(engine))
    log.record(Entry("x" * 10_000, Action.CALL, {"method": "y" * 10_000}))
    (line,) = log.records(0)
    assert len(line.body) < 1000
    assert check_chain([line]).sequence == 1


@pytest.fixture
async def commands(federation, tmp_path):
    """Run `fedgate` as an auditor against an orchestrator that has something on record."""
    async with federation.serving() as federation.server:
        await federation.start(PLAN)
        files = federation.authority.issue(Role.AUDITOR, "aud")
        settings = tmp_path / "operator.toml"
        tls = {name: str(path) for name, path in files}
        settings.write_text(tomli_w.dumps({"address": federation.address, "tls": tls}))

        async def command(*words: str):
            arguments = [*words, "--config", str(settings)]
            return await asyncio.to_thread(CliRunner().invoke, app, arguments)

        yield command


async def test_an_auditor_lists_who_did_what(commands):
    done = await commands("audit", "list", "--actor", "olga", "--format", "json")
    found = [json.loads(line) for line in done.output.splitlines()]
    assert [record["action"] for record in found] == ["upload_weights", "start_run"]
    table = await commands("audit", "list", "--action", "start_run")
    assert OLGA in table.output
    assert "upload_weights" not in table.output


async def test_a_log_that_is_whole_is_proven_over_the_wire_and_from_an_export(
    commands, federation, tmp_path
):
    done = await commands("audit", "verify", "--format", "json")
    proof = json.loads(done.output)
    assert proof["head"] == proof["signed"]
    export = tmp_path / "export.jsonl"
    export.write_text((await commands("audit", "export")).output)
    again = await commands("audit", "verify", "--file", str(export), "--key", proof["public_key"])
    assert again.exit_code == 0
    assert f"the chain is whole: record {proof['head']['sequence']}" in again.output
    other = await commands("audit", "verify", "--file", str(export), "--key", "0" * 64)
    assert "expected is 0000" in str(other.exception)


async def test_a_head_of_a_gateway_that_is_not_in_the_log_is_two_stories(
    commands, federation, engine, tmp_path
):
    log = audit_log(Fence(engine))
    log.record(ENTRY)
    heads = tmp_path / "north.jsonl"
    own = federation.server.orchestrator.audit
    heads.write_bytes(own.seal().to_text() + b"\n")
    assert (await commands("audit", "verify", "--heads", str(heads))).exit_code == 0
    heads.write_bytes(told_elsewhere(own, log).to_text() + b"\n")
    done = await commands("audit", "verify", "--heads", str(heads))
    assert "north.jsonl holds record 1" in str(done.exception)


def told_elsewhere(own, log):
    """Return a checkpoint of another log under the same key."""
    log._key = own._key
    return log.seal()
