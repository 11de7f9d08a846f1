from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import grpc
import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner

from cli.main import app
from common import wire
from common.errors import ConflictError, FederationError, NotFound, RequestError
from common.ids import RunId
from common.plan import Privacy, ServerOptimizer, Unit
from common.protocol import Body, Chunk, RunState, ScoreSet
from common.tls import Role
from common.weights import Layout, Weights
from orchestrator.budgets import mib_of
from orchestrator.config import Limits
from orchestrator.publishing import SumIncomplete, publish
from orchestrator.runs import begin
from protos.federation.v1 import operator_pb2 as pb
from tests.fakes import INITIAL, LAYOUT, plan_of
from tests.signing import order

PLAN = plan_of("a", "b")
BYTES = wire.plan_to_bytes(PLAN)
SCORES = ScoreSet(0, "dev", INITIAL.digest, f1=0.5, precision=0.25, recall=1.0, support=7)


@pytest.fixture
async def olga(federation):
    async with federation.serving():
        yield await federation.operator()


async def test_starting_a_run_twice_starts_it_once(olga):
    await olga.upload_weights(INITIAL.to_bytes())
    first = await olga.start_run(*order("r", BYTES))
    assert await olga.start_run(*order("r", BYTES)) == first
    assert len(await olga.list_runs()) == 1


async def test_a_name_is_not_given_to_two_plans(olga):
    await olga.upload_weights(INITIAL.to_bytes())
    await olga.start_run(*order("r", BYTES))
    with pytest.raises(ConflictError, match="started with another plan"):
        await olga.start_run(*order("r", plan_of("a")))


async def test_initial_weights_come_first(olga):
    with pytest.raises(ConflictError, match="send them with UploadWeights"):
        await olga.start_run(*order("r", BYTES))


async def test_initial_weights_fit_the_plan(olga):
    layout = Layout.of({"other": (2,)})
    other = Weights(layout, np.zeros(2, dtype=np.float32))
    await olga.upload_weights(other.to_bytes())
    plan = PLAN.model_copy(update={"initial_weights": other.digest})
    with pytest.raises(RequestError, match="tensors missing"):
        await olga.start_run(*order("r", plan))


@pytest.mark.parametrize(("name", "plan"), [("No Name", BYTES), ("r", b"no plan"), ("r", b"")])
async def test_what_is_no_name_or_plan_is_refused(olga, name, plan):
    with pytest.raises(RequestError):
        await olga.start_run(*order(name, plan))


async def test_a_model_beyond_the_limit_is_refused(federation):
    small = Limits(max_update_bytes=LAYOUT.byte_length - 1)
    federation.config = federation.config.model_copy(update={"limits": small})
    async with federation.serving():
        with pytest.raises(RequestError, match=r"limits\.max_update_bytes"):
            await federation.start(PLAN)


async def test_runs_that_need_more_memory_than_there_is_are_refused_until_one_has_ended(federation):
    limits = Limits(max_runs_mib=2)
    federation.config = federation.config.model_copy(update={"limits": limits})
    async with federation.serving():
        await federation.start(PLAN, "one")
        await federation.start(PLAN, "two")
        with pytest.raises(ConflictError, match=r"needs 1 MiB .*'two' 1, 'one' 1"):
            await federation.start(PLAN, "three")
        operator = await federation.start(PLAN, "two")  # it is there
        await operator.cancel_run(RunId("one"))
        await federation.start(PLAN, "three")


@pytest.mark.parametrize(
    ("server", "mib"),
    [
        ({}, 12),
        ({"momentum": 0.5}, 28),
        ({"tail_average": 0.5}, 28),
        ({"momentum": 0.5, "tail_average": 0.5}, 44),
    ],
)
def test_the_sum_and_what_the_server_remembers_take_memory(server, mib):
    layout = Layout.of({"weight": (1 << 20,)})
    task = PLAN.task.model_copy(update={"layout": layout})
    optimizer = ServerOptimizer(learning_rate=1.0, **server)
    assert mib_of(PLAN.model_copy(update={"task": task, "server": optimizer})) == mib


async def test_uploaded_weights_come_back(olga):
    digest = await olga.upload_weights(INITIAL.to_bytes())
    assert await olga.upload_weights(INITIAL.to_bytes()) == digest
    assert await olga.fetch_weights(digest) == INITIAL.to_bytes()


async def test_unknown_weights_are_not_found(olga):
    with pytest.raises(NotFound):
        await olga.fetch_weights("1" * 64)


async def test_an_offset_past_the_end_is_refused(federation):
    async with federation.serving():
        await federation.start(PLAN)
        (a,) = await federation.gateways("a")
        with pytest.raises(RequestError, match="past the end"):
            await anext(aiter(a.client.fetch_weights(INITIAL.digest, 1 << 20)))
        parts = [p async for p in a.client.fetch_weights(INITIAL.digest, LAYOUT.byte_length - 4)]
    assert parts[1].data == INITIAL.to_bytes()[-4:]


async def test_a_cancelled_run_stays_cancelled(federation):
    async with federation.serving():
        operator = await federation.start(PLAN)
        states = [(await operator.cancel_run(RunId("r"))).state for _ in range(2)]
    assert states == [RunState.CANCELLED] * 2


async def test_what_the_commands_print_of_a_run_names_unit_relation_and_delta(federation, tmp_path):
    promise = Privacy(unit=Unit.PERSON, delta=1e-6, target_epsilon=3.0)
    files = federation.authority.issue(Role.OPERATOR, "olga")
    config = tmp_path / "operator.toml"

    async def told(*command: str) -> dict:
        arguments = ["run", *command, "--config", str(config), "--format", "json"]
        done = await asyncio.to_thread(CliRunner().invoke, app, arguments)
        return json.loads(done.stdout.splitlines()[-1])  # the server's log may come before

    async with federation.serving():
        await federation.start(plan_of("a", "b", privacy=promise))
        tables = {"address": federation.address, "tls": {name: str(path) for name, path in files}}
        config.write_text(tomli_w.dumps(tables))
        printed = [await told("list"), await told("cancel", "r"), await told("watch", "r")]
    expected = promise.model_dump(mode="json")
    assert (expected["unit"], expected["relation"]) == ("person", "add_or_remove_one")
    assert [run["privacy"] for run in printed] == [expected] * 3


async def test_a_completed_run_cannot_be_cancelled(federation):
    async with federation.serving():
        operator = await federation.start(plan_of("a"))
        (a,) = await federation.gateways("a")
        await a.follow("r")
        with pytest.raises(ConflictError, match="has ended"):
            await operator.cancel_run(RunId("r"))
        states = [status.state async for status, _ in operator.watch_run(RunId("r"))]
    assert states == [RunState.COMPLETED]


async def test_of_many_gateways_single_answers_are_told_together_and_an_end_at_once(federation):
    many = plan_of("a", "b", *(f"g{number}" for number in range(8000)))
    async with federation.serving():
        operator = await federation.start(many)
        a, b = await federation.gateways("a", "b")
        async with aclosing(operator.watch_run(RunId("r"))) as states:
            await anext(states)
            await a.accept("r")
            await b.accept("r")
            await operator.cancel_run(RunId("r"))
            status, _ = await anext(states)
    accepted = {each.gateway for each in status.gateways if each.answer is not None}
    assert (status.state, accepted) == (RunState.CANCELLED, {"a", "b"})


async def test_of_few_gateways_each_answer_is_told(federation):
    async with federation.serving():
        operator = await federation.start(PLAN)
        a, b = await federation.gateways("a", "b")
        async with aclosing(operator.watch_run(RunId("r"))) as states:
            for gateway in (a, b):
                await gateway.accept("r")
                async for status, _ in states:
                    answers = {each.gateway: each.answer for each in status.gateways}
                    if answers[gateway.name] is not None:
                        break
    assert None not in answers.values()


async def test_the_newest_scores_of_a_round_are_shown(federation):
    async with federation.serving():
        operator = await federation.start(PLAN)
        for scores in (SCORES, SCORES, replace(SCORES, f1=0.75), replace(SCORES, split="test")):
            await operator.record_scores(RunId("r"), scores)
        with pytest.raises(FederationError, match="there are no weights 1111"):
            await operator.record_scores(RunId("r"), replace(SCORES, weights="1" * 64))
        status, _ = await operator.run(RunId("r"))
    assert status.scores == (replace(SCORES, f1=0.75), replace(SCORES, split="test"))


async def test_a_model_that_would_not_be_finite_is_not_published(federation):
    huge = PLAN.server.model_copy(update={"learning_rate": 1e300})
    async with federation.serving():
        operator = await federation.start(plan_of("a", server=huge))
        (a,) = await federation.gateways("a")
        stop = await a.follow("r")
        status, _ = await operator.run(RunId("r"))
    assert (stop.reason.value, status.published_round) == ("failed", 0)
    assert "would not be finite" in status.reason


@pytest.mark.parametrize("parts", [[], ["chunk"], ["header", "header"]])
async def test_a_stream_of_weights_in_a_wrong_order_is_refused(olga, parts):
    body = Body(INITIAL.digest, LAYOUT.byte_length)
    messages = {
        "header": pb.UploadWeightsRequest(header=wire.BODY.to_message(body)),
        "chunk": Chunk(0, b"1"),
    }
    stub = olga._stub
    with pytest.raises(grpc.aio.AioRpcError, match="part: ") as caught:
        await stub.UploadWeights(iter([messages[part] for part in parts]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_sum_that_is_not_what_the_journal_names_is_not_published():
    with pytest.raises(SumIncomplete):
        publish(begin(RunId("r"), PLAN, wire.plan_id(BYTES)), None, None)
