"""Callers who ask for too much are refused by name of the limit; the others notice nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

import grpc
import pytest

from common.channel import open_channel
from common.errors import LimitReached, RequestError, UnavailableError
from common.http2 import MIB
from common.plan import Rounds
from common.protocol import RunState
from common.tls import Role
from common.transfer import CHUNK_BYTES
from common.weights import Layout, Weights
from orchestrator import pace
from orchestrator.config import Limits
from protos.federation.v1 import operator_pb2 as opb
from protos.federation.v1.gateway_pb2_grpc import GatewayServiceStub
from protos.federation.v1.operator_pb2_grpc import OperatorServiceStub
from tests.fakes import INITIAL, VERSIONS, chunks, plan_of, until

PLAN = plan_of("a", "b", rounds=Rounds(count=1, maximum=1, quorum=2, deadline_s=60.0))
SLOW_S = 0.2
Code = grpc.StatusCode


@pytest.fixture
async def limited(federation):
    """A federation of small limits, served."""
    limits = Limits(requests_per_s=2.0, requests_at_once=20, uploads=2, first_message_s=SLOW_S)
    federation.config = federation.config.model_copy(update={"limits": limits})
    async with federation.serving():
        yield federation


async def status_of(call) -> tuple[Code, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 20)
    return caught.value.code(), caught.value.details()


async def finish(federation) -> None:
    """Take part in a run with two gateways until it has completed."""
    operator = await federation.start(PLAN)
    await asyncio.gather(*(g.follow("r") for g in await federation.gateways("a", "b")))
    await until(operator, lambda status: status.state is RunState.COMPLETED)


async def test_a_flood_is_told_which_limit_and_how_long_to_wait(limited):
    flooding = await limited.client("mallory")
    calls = [flooding.register(VERSIONS) for _ in range(50)]
    with pytest.raises(LimitReached, match=r"gateway 'mallory' .*limits\.requests_per_s") as caught:
        await asyncio.gather(*calls)
    assert caught.value.__cause__.code() is Code.RESOURCE_EXHAUSTED
    assert 0 < caught.value.wait_s <= 0.5


async def test_beside_a_flood_a_run_completes(limited):
    flooding, over = await limited.client("mallory"), asyncio.Event()

    async def flood() -> None:
        while not over.is_set():
            with suppress(LimitReached):
                await flooding.register(VERSIONS)

    async with asyncio.TaskGroup() as group:
        group.create_task(flood())
        await finish(limited)
        over.set()


@pytest.mark.parametrize("method", ["Register", "Watch", "SubmitUpdate"])
async def test_a_call_whose_first_message_does_not_come_is_ended(limited, method):
    files = limited.authority.issue(Role.GATEWAY, "mallory")
    async with open_channel(limited.address, files) as channel:
        path = f"/federation.v1.GatewayService/{method}"
        call = channel.stream_unary(path, request_serializer=bytes)
        code, details = await status_of(call(never()))
    assert code is Code.UNAVAILABLE
    assert "limits.first_message_s" in details


async def never():
    """A stream of requests that neither begins nor ends."""
    await asyncio.Event().wait()
    yield b""


async def test_a_call_without_a_message_is_refused(limited):
    async def nothing():
        return
        yield b""

    files = limited.authority.issue(Role.GATEWAY, "mallory")
    async with open_channel(limited.address, files) as channel:
        path = "/federation.v1.GatewayService/Register"
        call = channel.stream_unary(path, request_serializer=bytes)(nothing())
        assert (await status_of(call))[0] is Code.INVALID_ARGUMENT


@pytest.mark.parametrize("method", ["Register", "SubmitUpdate"])
async def test_bytes_that_are_no_message_are_the_callers_fault(limited, method):
    files = limited.authority.issue(Role.GATEWAY, "mallory")
    async with open_channel(limited.address, files) as channel:
        path = f"/federation.v1.GatewayService/{method}"
        call = channel.unary_unary(path, request_serializer=bytes)(b"\xff\xff")
        code, details = await status_of(call)
    assert code is Code.INVALID_ARGUMENT
    assert "not a message" in details


async def test_uploads_beyond_the_limit_are_refused_before_a_byte_of_them(federation):
    federation.config = federation.config.model_copy(update={"limits": Limits(uploads=2)})
    files = federation.authority.issue(Role.GATEWAY, "mallory")
    async with (
        federation.serving(),
        open_channel(federation.address, files) as channel,
        AsyncExitStack() as ends,
    ):
        calls = [GatewayServiceStub(channel).SubmitUpdate(never()) for _ in range(10)]
        for call in calls:
            ends.callback(call.cancel)
        ended: asyncio.Queue[tuple[Code, str]] = asyncio.Queue()

        async def wait_for(call) -> None:
            ended.put_nowait(await status_of(call))

        waiting = [asyncio.create_task(wait_for(call)) for call in calls]
        found = [await ended.get() for _ in range(8)]
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
    assert {code for code, _ in found} == {Code.RESOURCE_EXHAUSTED}
    assert all("limits.uploads" in details for _, details in found)


async def test_a_stranger_is_refused_before_its_message_is_read(limited):
    files = limited.authority.issue(Role.GATEWAY, "mallory")
    async with open_channel(limited.address, files) as channel:
        call = OperatorServiceStub(channel).UploadWeights(never())
        assert (await status_of(call))[0] is Code.PERMISSION_DENIED


async def test_calls_that_are_refused_for_the_role_count_as_well(limited):
    files = limited.authority.issue(Role.GATEWAY, "mallory")
    async with open_channel(limited.address, files) as channel:
        calls = [OperatorServiceStub(channel).ListRuns(opb.ListRunsRequest()) for _ in range(50)]
        codes = {code for code, _ in await asyncio.gather(*map(status_of, calls))}
    assert codes == {Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED}


async def test_a_connection_that_says_nothing_is_closed(federation):
    limits = Limits(handshake_s=SLOW_S)
    federation.config = federation.config.model_copy(update={"limits": limits})
    async with federation.serving() as server:
        host, _, port = server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_connection_beyond_their_number_is_closed_and_the_others_stay(federation):
    federation.config = federation.config.model_copy(update={"limits": Limits(connections=2)})
    async with federation.serving() as server:
        here = await federation.client("a")
        await here.register(VERSIONS)
        host, _, port = server.address.rpartition(":")
        second = await asyncio.open_connection(host, int(port))
        third, theirs = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(third.read(), 10) == b""
        await here.register(VERSIONS)
        theirs.close()
        second[1].close()


async def test_a_compressed_bomb_is_refused(limited):
    files = limited.authority.issue(Role.GATEWAY, "mallory")
    options = [("grpc.max_send_message_length", -1)]
    credentials, gzip = files.channel_credentials(), grpc.Compression.Gzip
    async with grpc.aio.secure_channel(
        limited.address, credentials, options=options, compression=gzip
    ) as channel:
        call = channel.unary_unary("/federation.v1.GatewayService/Register")(bytes(64 * MIB))
        assert (await status_of(call))[0] is Code.RESOURCE_EXHAUSTED


async def test_without_room_on_the_disk_no_body_is_taken_until_there_is(federation, monkeypatch):
    free = {"bytes": 1000 * MIB}
    monkeypatch.setattr("common.disk.SystemDisk.free", lambda *_: free["bytes"])
    async with federation.serving():
        operator = await federation.start(PLAN)
        free["bytes"] = 100 * MIB
        with pytest.raises(UnavailableError, match=r"100 MiB free.*disk_reserve_mib keeps 256"):
            await operator.upload_weights(INITIAL.to_bytes())
        gateways = await federation.gateways("a", "b")
        for gateway in gateways:
            await gateway.client.register(VERSIONS)
            await gateway.accept("r")
        with pytest.raises(UnavailableError, match=r"limits\.disk_reserve_mib"):
            await gateways[0].send("r", 1, INITIAL.digest)
        free["bytes"] = 1000 * MIB
        for gateway in gateways:
            await gateway.send("r", 1, INITIAL.digest)
        await until(operator, lambda status: status.state is RunState.COMPLETED)


async def test_a_gateway_that_sends_its_round_again_and_again_is_stopped(federation, lawless):
    layout = Layout.of({"wide": (CHUNK_BYTES // 4,)})
    weights = Weights(layout, INITIAL.values[:1].repeat(layout.size))
    task = PLAN.task.model_copy(update={"layout": layout})
    plan = PLAN.model_copy(update={"task": task, "initial_weights": weights.digest})
    federation.config = federation.config.model_copy(update={"limits": Limits(bodies_per_round=2)})
    async with federation.serving():
        await federation.start(plan, initial=weights)
        for gateway in await federation.gateways("a", "b"):
            await gateway.client.register(VERSIONS)
            await gateway.accept("r")
        bad = bytes(layout.byte_length)
        (mallory,) = await federation.gateways("a", kind=lawless)
        header = await mallory.header("r", 1, weights.digest, bad)
        header = replace(header, body=replace(header.body, digest="1" * 64))  # may be sent again
        for _ in range(2):
            with pytest.raises(RequestError):
                await mallory.client.submit_update(header, chunks(bad))
        with pytest.raises(LimitReached, match=r"limits\.bodies_per_round"):
            await mallory.client.submit_update(header, chunks(bad))


async def test_weights_that_come_too_slowly_end_their_call(federation, monkeypatch):
    monkeypatch.setattr(pace, "PERIOD_S", SLOW_S)

    async def stuck():
        body = {"digest": "0" * 64, "byte_length": CHUNK_BYTES}
        yield opb.UploadWeightsRequest(header=body)
        await asyncio.Event().wait()

    async with federation.serving():
        files = federation.authority.issue(Role.OPERATOR, "olga")
        async with open_channel(federation.address, files) as channel:
            call = OperatorServiceStub(channel).UploadWeights(stuck())
            assert (await status_of(call))[0] is Code.UNAVAILABLE
        assert list((federation.config.state / "weights").iterdir()) == []
