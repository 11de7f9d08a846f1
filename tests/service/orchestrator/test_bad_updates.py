"""Each bad update gets its status, and the round closes without it."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import suppress
from dataclasses import replace

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from common import wire
from common.bad_updates import UpdateRefusalReason
from common.errors import AbortedError, FederationError, UnavailableError
from common.ids import RunId
from common.plan import Rounds
from common.protocol import (
    Body,
    Chunk,
    Decline,
    Refusal,
    RefusalReason,
    RunState,
    UpdateHeader,
    UpdateKey,
)
from common.transfer import CHUNK_BYTES, chunks_of, digest_of
from common.weights import Layout, Weights
from orchestrator import pace
from orchestrator.rpc_errors import DETAILS_KEY
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1 import weights_pb2
from tests.fakes import INITIAL, LAYOUT, FakeGateway, chunks, plan_of, until

PLAN = plan_of("a", "b", rounds=Rounds(count=1, maximum=1, quorum=1, deadline_s=60.0))
Code = grpc.StatusCode
PAUSE_S = 0.02  # between questions: a caller has so many a second


@pytest.fixture
async def opened(federation, lawless):
    """Gateways a and b are in round 1; one update is enough at the deadline."""
    async with federation.serving():
        federation.operator_calls = await federation.start(PLAN)
        federation.a, federation.b = await federation.gateways("a", "b", kind=lawless)
        await federation.a.accept("r")
        await federation.b.accept("r")
        yield federation


def refused(caught) -> tuple[grpc.StatusCode, str]:
    """Return the status code and the error's class, as they came over the wire."""
    error = caught.value.__cause__
    status, info = Status(), ErrorInfo()
    status.ParseFromString(dict(error.trailing_metadata())[DETAILS_KEY])
    status.details[0].Unpack(info)
    assert status.code == error.code().value[0]
    return error.code(), info.reason


async def send(gateway, data: bytes, *, key: UpdateKey | None = None, **changes):
    header = await gateway.header("r", 1, INITIAL.digest, data)
    header = replace(header, key=key or header.key, **changes)
    return await gateway.client.submit_update(header, chunks(data, header.body.offset))


def values_with(value: float) -> bytes:
    values = np.zeros(LAYOUT.size, dtype=np.float32)
    values[5] = value
    return Weights(LAYOUT, values).to_bytes()


def zeros(**shapes: tuple[int, ...]) -> bytes:
    layout = Layout.of(shapes)
    return Weights(layout, np.zeros(layout.size, dtype=np.float32)).to_bytes()


def float16() -> bytes:
    entries = {
        "bias": {"dtype": "F16", "shape": [3], "data_offsets": [0, 6]},
        "kernel": {"dtype": "F16", "shape": [4, 3], "data_offsets": [6, 30]},
    }
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + bytes(30)


BAD_BODIES = {
    "NameMismatch": zeros(bias=(3,), another=(4, 3)),
    "ShapeMismatch": zeros(bias=(3,), kernel=(3, 4)),
    "ElementTypeMismatch": float16(),
    "NotFinite": values_with(float("nan")),
    "OutOfRange": values_with(4096.0),
    "MalformedWeights": b"not weights at all",
}
VERDICTS = {
    "NameMismatch": UpdateRefusalReason.NAMES,
    "ShapeMismatch": UpdateRefusalReason.SHAPES,
    "ElementTypeMismatch": UpdateRefusalReason.ELEMENT_TYPE,
    "NotFinite": UpdateRefusalReason.NOT_FINITE,
    "OutOfRange": UpdateRefusalReason.OUT_OF_RANGE,
    "MalformedWeights": UpdateRefusalReason.MALFORMED,
}


@pytest.mark.parametrize("reason", BAD_BODIES)
async def test_a_bad_body_is_refused_and_the_round_closes_without_it(opened, reason):
    with pytest.raises(FederationError) as caught:
        await send(opened.a, BAD_BODIES[reason])
    assert refused(caught) == (Code.INVALID_ARGUMENT, reason)
    status = await until(opened.operator_calls, lambda s: s.gateways[0].refused is not None)
    assert status.gateways[0].refused == VERDICTS[reason]
    await opened.b.send("r", 1, INITIAL.digest)  # the clock stands still: nobody waits for a
    status = await until(opened.operator_calls, lambda s: s.state is RunState.COMPLETED)
    assert [g.rounds_counted for g in status.gateways] == [0, 1]
    assert [g.rounds_refused for g in status.gateways] == [1, 0]


async def test_a_verdict_is_final_for_the_round(opened):
    with pytest.raises(FederationError):
        await send(opened.a, values_with(float("nan")))
    for data in (values_with(float("nan")), opened.a.body(1)):
        with pytest.raises(FederationError, match=r"was refused \(not_finite\)") as caught:
            await send(opened.a, data)
        assert refused(caught) == (Code.FAILED_PRECONDITION, "UpdateWasRefused")


async def test_what_a_damaged_transfer_is_answered_is_no_verdict(opened):
    data = opened.a.body(1)
    for body in (Body("1" * 64, len(data)), Body(digest_of(data), len(data) + 4)):
        with pytest.raises(FederationError):
            await send(opened.a, data, body=body)
    assert (await opened.a.send("r", 1, INITIAL.digest)).digest == digest_of(data)


async def test_of_two_gateways_with_the_same_bytes_the_first_is_counted(opened):
    await opened.a.send("r", 1, INITIAL.digest)
    with pytest.raises(FederationError) as caught:
        await send(opened.b, opened.a.body(1))
    assert refused(caught) == (Code.INVALID_ARGUMENT, "CopiedUpdate")
    status = await until(opened.operator_calls, lambda s: s.state is RunState.COMPLETED)
    assert [g.rounds_counted for g in status.gateways] == [1, 0]
    assert status.gateways[1].refused is UpdateRefusalReason.COPY


async def test_an_infinite_value_is_not_finite(opened):
    with pytest.raises(FederationError) as caught:
        await send(opened.a, values_with(float("inf")))
    assert refused(caught) == (Code.INVALID_ARGUMENT, "NotFinite")


async def test_a_broadcastable_tensor_is_not_broadcast(opened):
    with pytest.raises(FederationError) as caught:
        await send(opened.a, zeros(bias=(1,), kernel=(4, 3)))
    assert refused(caught) == (Code.INVALID_ARGUMENT, "ShapeMismatch")


async def test_a_refusal_stays_short_whatever_the_names_say(opened):
    with pytest.raises(FederationError) as caught:
        await send(opened.a, zeros(**{f"{n}" * 400: (1,) for n in "äöüßé"}))
    assert refused(caught) == (Code.INVALID_ARGUMENT, "NameMismatch")
    assert len(str(caught.value)) < 1000


async def test_a_wrong_digest_is_refused(opened):
    data = opened.a.body(1)
    with pytest.raises(FederationError) as caught:
        await send(opened.a, data, body=Body("1" * 64, len(data)))
    assert refused(caught) == (Code.INVALID_ARGUMENT, "DigestMismatch")


@pytest.mark.parametrize("more", [-4, 4])
async def test_a_body_that_is_not_as_long_as_declared_is_refused(opened, more):
    data = opened.a.body(1)
    with pytest.raises(FederationError) as caught:
        await send(opened.a, data, body=Body(digest_of(data), len(data) + more))
    assert refused(caught) == (Code.OUT_OF_RANGE, "LengthMismatch")


async def test_a_body_that_ends_early_goes_on_where_it_ended(opened):
    data = opened.a.body(1)
    header = await opened.a.header("r", 1, INITIAL.digest, data)
    with pytest.raises(FederationError) as caught:  # as a connection that breaks may look
        await opened.a.client.submit_update(header, chunks(data[:-4], 0))
    assert refused(caught) == (Code.OUT_OF_RANGE, "LengthMismatch")
    state = await opened.a.client.get_upload(header.key, header.body.digest)
    assert state.offset == len(data) - 4


def shorten(content: bytes) -> bytes:
    return content[:-8]


def alter(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("loss_of_power", [shorten, alter])
async def test_bytes_that_a_loss_of_power_took_are_sent_again(opened, loss_of_power):
    data = opened.a.body(1)
    header = await opened.a.header("r", 1, INITIAL.digest, data)
    with pytest.raises(FederationError):
        await opened.a.client.submit_update(header, chunks(data[:-4], 0))
    (staged,) = (opened.config.state / "uploads").glob("r_1_a_*")
    staged.write_bytes(loss_of_power(staged.read_bytes()))
    resumed = await opened.a.header("r", 1, INITIAL.digest, data)
    with pytest.raises(AbortedError) as caught:
        await opened.a.client.submit_update(resumed, chunks(data, resumed.body.offset))
    assert refused(caught) == (Code.ABORTED, "StagedBytesDamaged")
    assert (await opened.a.send("r", 1, INITIAL.digest)).digest == digest_of(data)


@pytest.mark.parametrize("byte_length", [1 << 40, 1 << 63, (1 << 64) - 1])
async def test_a_body_that_declares_too_much_is_refused_before_its_bytes_come(opened, byte_length):
    body = Body("1" * 64, byte_length)
    with pytest.raises(FederationError) as caught:
        await send(opened.a, opened.a.body(1), body=body)
    assert refused(caught) == (Code.OUT_OF_RANGE, "BodyTooLong")


async def test_chunks_out_of_order_or_too_long_are_refused(opened):
    data = bytes(CHUNK_BYTES + 8)
    header = await opened.a.header("r", 1, INITIAL.digest, data)
    for chunk, reason in [(Chunk(4, data[:4]), "OffsetMismatch"), (Chunk(0, data), "ChunkTooLong")]:

        async def one(chunk=chunk):
            yield chunk

        with pytest.raises(FederationError) as caught:
            await opened.a.client.submit_update(header, one())
        assert refused(caught) == (Code.INVALID_ARGUMENT, reason)


async def test_a_transfer_that_does_not_go_on_where_the_last_one_ended_may_be_tried_again(opened):
    data = opened.a.body(1)
    with pytest.raises(AbortedError) as caught:
        await send(opened.a, data, body=Body(digest_of(data), len(data), offset=8))
    assert refused(caught) == (Code.ABORTED, "UploadMoved")
    assert (await opened.a.send("r", 1, INITIAL.digest)).digest == digest_of(data)


@pytest.mark.parametrize(("more", "got"), [(b"", 0), (b"x", 1)], ids=["stalled", "trickling"])
async def test_a_stream_that_stops_is_ended_and_goes_on_later(opened, monkeypatch, more, got):
    monkeypatch.setattr(pace, "PERIOD_S", 0.1)
    monkeypatch.setattr(pace, "LEAST_BYTES", 10)
    data = opened.a.body(1)
    header = await opened.a.header("r", 1, INITIAL.digest, data)

    async def stopping():
        yield Chunk(0, data[:10])
        if more:
            yield Chunk(10, data[10 : 10 + len(more)])
        await asyncio.Event().wait()

    with pytest.raises(UnavailableError, match=f"{got} bytes came within") as caught:
        await opened.a.client.submit_update(header, stopping())
    assert refused(caught) == (Code.UNAVAILABLE, "TooSlow")
    resumed = await opened.a.header("r", 1, INITIAL.digest, data)
    assert resumed.body.offset == 10 + got
    receipt = await opened.a.client.submit_update(resumed, chunks(data, resumed.body.offset))
    assert receipt.digest == header.body.digest


async def test_the_same_update_twice_counts_once(opened):
    first = await opened.a.send("r", 1, INITIAL.digest)
    again = await opened.a.send("r", 1, INITIAL.digest)
    assert first == again
    state = await opened.a.client.get_upload(first.key, first.digest)
    assert state.received
    await opened.b.send("r", 1, INITIAL.digest)
    status = await until(opened.operator_calls, lambda s: s.state is RunState.COMPLETED)
    assert status.bytes_received == 2 * LAYOUT.byte_length


async def test_another_update_for_the_same_round_is_refused(opened):
    header = await opened.a.header("r", 1, INITIAL.digest, values_with(1.0))
    await opened.a.send("r", 1, INITIAL.digest)
    with pytest.raises(FederationError) as caught:
        await opened.a.client.submit_update(header, chunks(values_with(1.0)))
    assert refused(caught) == (Code.FAILED_PRECONDITION, "AlreadyAnswered")


async def test_an_update_for_a_closed_round_is_refused(opened):
    header = await opened.a.header("r", 1, INITIAL.digest, opened.a.body(1))
    await opened.b.send("r", 1, INITIAL.digest)
    opened.clock.advance(60.0)
    await until(opened.operator_calls, lambda s: s.state is RunState.COMPLETED)
    with pytest.raises(FederationError) as caught:
        await opened.a.client.submit_update(header, chunks(opened.a.body(1)))
    assert refused(caught) == (Code.FAILED_PRECONDITION, "RunEnded")


async def test_an_update_that_is_under_way_when_its_round_closes_is_refused(opened):
    data, may_end = opened.a.body(1), asyncio.Event()
    header = await opened.a.header("r", 1, INITIAL.digest, data)

    async def slowly():
        await may_end.wait()
        async for chunk in chunks(data):
            yield chunk

    sending = asyncio.create_task(opened.a.client.submit_update(header, slowly()))
    await opened.b.send("r", 1, INITIAL.digest)
    opened.clock.advance(60.0)
    await until(opened.operator_calls, lambda s: s.state is RunState.COMPLETED)
    may_end.set()
    with pytest.raises(FederationError) as caught:
        await sending
    assert refused(caught) == (Code.FAILED_PRECONDITION, "RunEnded")


async def test_an_update_for_a_round_to_come_is_refused(opened):
    with pytest.raises(FederationError) as caught:
        await send(opened.a, opened.a.body(1), key=UpdateKey(RunId("r"), 2))
    assert refused(caught) == (Code.FAILED_PRECONDITION, "RoundNotOpen")


async def test_an_update_from_a_gateway_that_was_not_invited_is_refused(opened):
    (stranger,) = await opened.gateways("stranger")
    header = await opened.a.header("r", 1, INITIAL.digest, opened.a.body(1))
    with pytest.raises(FederationError) as caught:
        await stranger.client.submit_update(header, chunks(opened.a.body(1)))
    assert refused(caught) == (Code.PERMISSION_DENIED, "NotInvited")
    for call in (stranger.client.get_config(RunId("r")), stranger.fetch(INITIAL_BODY)):
        with pytest.raises(FederationError):
            await call


INITIAL_BODY = Body(INITIAL.digest, LAYOUT.byte_length)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"plan_digest": "1" * 64}, "WrongPlan"), ({"parent": "1" * 64}, "WrongParent")],
)
async def test_an_update_from_another_plan_or_parent_is_refused(opened, changes, reason):
    with pytest.raises(FederationError) as caught:
        await send(opened.a, opened.a.body(1), **changes)
    assert refused(caught) == (Code.INVALID_ARGUMENT, reason)


async def test_an_update_for_an_unknown_run_is_refused(opened):
    with pytest.raises(FederationError) as caught:
        await send(opened.a, opened.a.body(1), key=UpdateKey(RunId("other"), 1))
    assert refused(caught) == (Code.NOT_FOUND, "UnknownRun")


async def test_of_two_uploads_at_once_the_second_is_refused(opened):
    data, may_end = opened.a.body(1), asyncio.Event()
    header = await opened.a.header("r", 1, INITIAL.digest, data)

    async def slowly():
        yield Chunk(0, data[:10])
        await may_end.wait()
        yield Chunk(10, data[10:])

    first = asyncio.create_task(opened.a.client.submit_update(header, slowly()))
    await arrived(opened.a, header, 10)
    with pytest.raises(FederationError) as caught:
        await opened.a.client.submit_update(header, chunks(data))
    assert refused(caught) == (Code.ABORTED, "UploadInProgress")
    may_end.set()
    assert (await first).digest == header.body.digest


WIDE = Layout.of({"w": (700_000,)})
ZEROS = Weights(WIDE, np.zeros(WIDE.size, dtype=np.float32))


@pytest.fixture
async def wide(federation, lawless):
    """Gateway a alone is in a round whose update takes three chunks."""
    task = PLAN.task.model_copy(update={"layout": WIDE})
    rounds = Rounds(count=1, maximum=1, quorum=1, deadline_s=60.0)
    plan = plan_of("a", task=task, initial_weights=ZEROS.digest, rounds=rounds)
    async with federation.serving():
        federation.operator_calls = await federation.operator()
        await federation.operator_calls.upload_weights(ZEROS.to_bytes())
        await federation.start(plan)
        (federation.a,) = await federation.gateways("a", kind=lawless)
        await federation.a.accept("r")
        yield federation


async def arrived(gateway: FakeGateway, header: UpdateHeader, count: int) -> None:
    """Return once so many bytes of an update have arrived."""
    for _ in range(1000):
        state = await gateway.client.get_upload(header.key, header.body.digest)
        if state.offset >= count:
            return
        await asyncio.sleep(PAUSE_S)
    raise AssertionError("they did not come")


async def tear(gateway, data: bytes) -> None:
    """Send two chunks of `data` and some bytes, then break the call off."""
    header = await gateway.header("r", 1, ZEROS.digest, data)

    async def torn():
        for chunk in list(chunks_of(data))[:2]:
            yield chunk
        for offset in range(2 * CHUNK_BYTES, len(data)):  # what came is kept with what comes next
            yield Chunk(offset, data[offset : offset + 1])
            await asyncio.sleep(PAUSE_S)

    sending = asyncio.create_task(gateway.client.submit_update(header, torn()))
    await arrived(gateway, header, 2 * CHUNK_BYTES)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_torn_upload_goes_on_where_it_ended(wide):
    data = Weights(WIDE, np.ones(WIDE.size, dtype=np.float32)).to_bytes()
    await tear(wide.a, data)
    receipt = None
    while receipt is None:  # the torn call may still be on its way out
        header = await wide.a.header("r", 1, ZEROS.digest, data)
        with suppress(UnavailableError):
            rest = chunks(data, header.body.offset)
            receipt = await wide.a.client.submit_update(header, rest)
        await asyncio.sleep(PAUSE_S)
    status = await until(wide.operator_calls, lambda s: s.state is RunState.COMPLETED)
    assert header.body.offset >= 2 * CHUNK_BYTES
    assert status.bytes_received < len(data) + CHUNK_BYTES  # no chunk came twice
    assert list((wide.config.state / "uploads").glob("*")) == []


async def test_a_gateway_may_decline_and_the_round_closes_without_it(opened):
    key = UpdateKey(RunId("r"), 1)
    decline = Decline(key, Refusal(RefusalReason.DATA_UNFIT, "labels"))
    assert (await opened.a.client.decline(decline)).digest is None
    assert (await opened.a.client.decline(decline)).key == key
    await opened.b.send("r", 1, INITIAL.digest)
    status = await until(opened.operator_calls, lambda s: s.state is RunState.COMPLETED)
    assert [g.rounds_counted for g in status.gateways] == [0, 1]


@pytest.mark.parametrize("parts", [[], ["chunk"], ["header", "header"]])
async def test_a_stream_in_a_wrong_order_is_refused(opened, parts):
    header = await opened.a.header("r", 1, INITIAL.digest, opened.a.body(1))
    messages = {
        "header": pb.SubmitUpdateRequest(header=wire.UPDATE_HEADER.to_message(header)),
        "chunk": pb.SubmitUpdateRequest(chunk=weights_pb2.Chunk(data=b"1")),
    }
    stub = opened.a.client._stub
    with pytest.raises(grpc.aio.AioRpcError, match="part: ") as caught:
        await stub.SubmitUpdate(iter([messages[part] for part in parts]))
    assert caught.value.code() is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("digest", ["../../journal", "1" * 63, ""])
async def test_a_digest_that_is_none_is_refused(opened, digest):
    with pytest.raises(FederationError) as caught:
        await opened.a.client.get_upload(UpdateKey(RunId("r"), 1), digest)
    assert refused(caught) == (Code.INVALID_ARGUMENT, "InvalidMessage")
