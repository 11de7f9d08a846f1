"""Messages and values: what goes out comes back, what does not fit is named."""

from __future__ import annotations

import pytest

from common import wire, wire_operator
from common.adaptive_clipping import AdaptiveClipping
from common.hyperparameters import Hyperparameters, Optimizer
from common.ids import NO_RUN, GatewayId, PlanId, RunId, WeightsId
from common.plan import Privacy, Unit
from common.protocol import (
    Body,
    Chunk,
    Config,
    Decline,
    Effective,
    GatewayStatus,
    LedgerHead,
    Receipt,
    Refusal,
    RefusalReason,
    Registration,
    Review,
    RunNews,
    RunState,
    RunStatus,
    ScoreSet,
    Stop,
    StopReason,
    Train,
    UpdateHeader,
    UpdateKey,
    UploadState,
    Versions,
    Wait,
    WaitReason,
)
from common.trace_context import traceparent_of
from common.wire_values import InvalidMessage
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1 import operator_pb2, weights_pb2

RUN, DIGEST, PLAN = RunId("run-1"), WeightsId("ab" * 32), PlanId("cd" * 32)
KEY = UpdateKey(RUN, 3)
VALUES = Hyperparameters(
    learning_rate=0.5,
    clipping_norm=0.25,
    noise_multiplier=1.5,
    sampling_rate=0.125,
    local_steps=4,
    optimizer=Optimizer.ADAMW,
    weight_decay=0.01,
    warmup_steps=2,
)
ADAPTIVE = VALUES.model_copy(
    update={"adaptive_clipping": AdaptiveClipping(smallest=0.1, largest=2.0)}
)
HEAD = LedgerHead(4, "ef" * 32, insecure_deterministic=True)
REFUSAL = Refusal(RefusalReason.NOISE_FLOOR, "noise_multiplier")


@pytest.mark.parametrize(
    "instruction",
    [
        Review(PLAN),
        Train(2, Body(DIGEST, 100), 12.5),
        Train(2, Body(DIGEST, 100), 12.5, traceparent_of(RUN, PLAN, 2, 1)),
        Wait(WaitReason.NO_ROUND),
        Stop(StopReason.CANCELLED),
    ],
)
def test_news_comes_back(instruction):
    news = RunNews(RUN, 1, instruction)
    assert wire.news_from_proto(wire.news_to_proto(news)) == news


def test_news_of_no_run_comes_back():
    news = RunNews(NO_RUN, 0, Stop(StopReason.SUPERSEDED))
    assert wire.news_from_proto(wire.news_to_proto(news)) == news


@pytest.mark.parametrize(
    "traceparent", ["00-", "00-" + "g" * 32 + "-" + "1" * 16 + "-01", "a note"]
)
def test_a_trace_that_is_none_is_refused(traceparent):
    message = wire.news_to_proto(RunNews(RUN, 1, Train(2, Body(DIGEST, 100), 12.5)))
    forged = pb.WatchResponse.FromString(message.SerializeToString())
    forged.train.traceparent = traceparent
    with pytest.raises(InvalidMessage, match="traceparent"):
        wire.news_from_proto(forged)


def test_news_that_says_nothing_is_refused():
    with pytest.raises(InvalidMessage, match="task"):
        wire.news_from_proto(pb.WatchResponse(run_id="r"))


@pytest.mark.parametrize("answer", [Effective(VALUES), Effective(ADAPTIVE, True), REFUSAL])
def test_an_answer_to_a_plan_comes_back(answer):
    message = wire.answer_to_proto(RUN, PLAN, answer)
    assert wire.answer_from_proto(message) == answer


def test_an_answer_that_is_neither_is_refused():
    with pytest.raises(InvalidMessage, match="answer"):
        wire.answer_from_proto(pb.AcceptPlanRequest())


def test_versions_and_registration_come_back():
    versions = Versions(1, "0.1", {"ner": "ab" * 32})
    assert wire.versions_from_register(wire.versions_to_register(versions)) == versions
    registration = Registration(GatewayId("g"), "lease", Versions(1, "0.1"), 1 << 20)
    assert wire.registration_from_proto(wire.registration_to_proto(registration)) == registration


def test_a_config_comes_back_and_a_wrong_digest_does_not():
    plan = b"plan"
    config = Config(RUN, plan, wire.plan_id(plan), VALUES)
    message = wire.config_to_proto(config)
    assert wire.config_from_proto(RUN, message) == config
    message.plan = b"another"
    with pytest.raises(InvalidMessage, match="plan_digest"):
        wire.config_from_proto(RUN, message)


@pytest.mark.parametrize(
    ("bridge", "value"),
    [
        (wire.UPDATE_HEADER, UpdateHeader(KEY, PLAN, DIGEST, Body(DIGEST, 7, 3))),
        (wire.UPDATE_HEADER, UpdateHeader(KEY, PLAN, DIGEST, Body(DIGEST, 7), HEAD)),
        (wire.DECLINE, Decline(KEY, REFUSAL)),
        (wire.HYPERPARAMETERS, VALUES),
        (wire.HYPERPARAMETERS, ADAPTIVE),
        (wire_operator.SCORES, ScoreSet(1, "test", DIGEST, 0.5, 0.25, 0.75, 12)),
    ],
)
def test_values_come_back(bridge, value):
    assert bridge.from_message(bridge.to_message(value)) == value


def test_receipts_uploads_and_chunks_come_back():
    for receipt in (Receipt(KEY, DIGEST), Receipt(KEY, None)):
        assert wire.receipt_from_proto(wire.receipt_to_proto(receipt)) == receipt
    state = UploadState(5, received=True)
    assert wire.upload_state_from_proto(wire.upload_state_to_proto(state)) == state
    assert wire.upload_request(KEY, DIGEST).key.round == 3
    assert wire.chunk_from_proto(weights_pb2.Chunk(offset=4, data=b"ab")) == Chunk(4, b"ab")
    assert wire.run_ids(["a", "", "b"]) == ("a", "b")


def test_a_gateway_names_so_many_runs_and_tasks_and_no_more():
    names = [f"r{number}" for number in range(wire.MOST_NAMED + 1)]
    assert len(wire.run_ids(names[:-1])) == wire.MOST_NAMED
    with pytest.raises(InvalidMessage, match="names 4097 runs, at most 4096 are read"):
        wire.run_ids(names)
    message = wire.versions_to_register(Versions(1, "0.1.0", dict.fromkeys(names, "7" * 64)))
    with pytest.raises(InvalidMessage, match="names 4097 tasks, at most 4096 are read"):
        wire.versions_from_register(message)


def test_a_status_comes_back_whole():
    gateways = (
        GatewayStatus(GatewayId("a"), True, True, 2, 1, Effective(VALUES)),
        GatewayStatus(GatewayId("b"), False, False, 0, 0, REFUSAL),
        GatewayStatus(GatewayId("c"), False, False, 0, 0),
    )
    scores = (ScoreSet(1, "dev", DIGEST, 0.5, 0.5, 0.5, 3),)
    status = RunStatus(
        RUN,
        "n",
        RunState.RUNNING,
        PLAN,
        round=2,
        rounds=5,
        gateways=gateways,
        scores=scores,
        privacy=Privacy(unit=Unit.DOCUMENT, delta=1e-5, target_epsilon=8.0),
    )
    assert wire_operator.status_from_proto(wire_operator.status_to_proto(status)) == status


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (pb.UpdateHeader(key=pb.UpdateKey(run_id="../x", round=1)), "run_id"),
        (pb.UpdateHeader(key=pb.UpdateKey(run_id="x", round=0)), "round"),
        (pb.UpdateHeader(key=pb.UpdateKey(run_id="x", round=1), plan_digest="zz"), "plan_digest"),
    ],
)
def test_a_header_that_does_not_fit_names_the_field(message, field):
    with pytest.raises(InvalidMessage, match=field):
        wire.UPDATE_HEADER.from_message(message)


def test_values_that_are_no_numbers_are_refused():
    message = wire.HYPERPARAMETERS.to_message(VALUES)
    message.noise_multiplier = float("nan")
    with pytest.raises(InvalidMessage, match="noise_multiplier"):
        wire.HYPERPARAMETERS.from_message(message)


def test_an_enumeration_nobody_knows_is_refused():
    message = wire.HYPERPARAMETERS.to_message(VALUES)
    message.optimizer = 77
    with pytest.raises(InvalidMessage, match="optimizer"):
        wire.HYPERPARAMETERS.from_message(message)


def test_an_f1_above_one_is_refused():
    scores = operator_pb2.ScoreSet(split="dev", weights=DIGEST, f1=1.5)
    with pytest.raises(InvalidMessage, match="f1"):
        wire_operator.SCORES.from_message(scores)


def test_bytes_that_are_no_plan_are_refused():
    with pytest.raises(InvalidMessage):
        wire.plan_from_bytes(b"\xff\xff\xff")
