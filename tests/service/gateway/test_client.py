"""A gateway's client: what it lets out, what it makes of an orchestrator that is newer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest

from common.frames import GO_AHEAD
from common.ids import PlanId, RunId, WeightsId
from common.protocol import Body, Chunk, Review, UpdateHeader, UpdateKey, Versions
from common.tls import Role
from common.transfer import CHUNK_BYTES
from gateway import transfers
from gateway.client import GrpcClient
from gateway.outgoing import NotInManifest
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1.gateway_pb2_grpc import (
    GatewayServiceServicer,
    add_GatewayServiceServicer_to_server,
)
from tests.certificates import Authority

DIGEST, LEASE = "ab" * 32, "ab" * 16


class Newer(GatewayServiceServicer):
    """Says something that this version has no name for, then something that it has."""

    async def Watch(self, request, context):  # noqa: N802 (gRPC's name)
        yield pb.WatchResponse(run_id="r")  # a field that is not known here is as if unset
        unknown = pb.WatchResponse(run_id="r")
        unknown.stop.reason = 99
        yield unknown
        yield pb.WatchResponse(run_id="r", review=pb.Review(plan_digest=DIGEST))


class Counting(Newer):
    """Counts what arrives."""

    def __init__(self) -> None:
        self.calls = 0

    async def SubmitUpdate(self, requests, context):  # noqa: N802 (gRPC's name)
        await context.send_initial_metadata(((GO_AHEAD, "1"),))
        async for _ in requests:
            self.calls += 1
        return pb.SubmitUpdateResponse(key=pb.UpdateKey(run_id="r", round=1), digest=DIGEST)

    async def Register(self, request, context):  # noqa: N802 (gRPC's name)
        self.calls += 1
        return pb.RegisterResponse(gateway="o", lease=LEASE, protocol_version=1)


class Torn(Newer):
    """Holds some bytes of the update already."""

    HELD = 1

    async def GetUpload(self, request, context):  # noqa: N802 (gRPC's name)
        return pb.GetUploadResponse(offset=self.HELD)

    async def SubmitUpdate(self, requests, context):  # noqa: N802 (gRPC's name)
        header = (await anext(requests)).header
        if header.body.offset != self.HELD:
            await context.abort(grpc.StatusCode.ABORTED, "ask GetUpload where to go on")
        await context.send_initial_metadata(((GO_AHEAD, "1"),))
        self.got = [request.chunk.offset async for request in requests]
        return pb.SubmitUpdateResponse(key=header.key, digest=header.body.digest)


async def broken_chunks():
    yield Chunk(0, b"1234")
    raise KeyError("Kanarienvogel")


async def too_long():
    yield Chunk(0, bytes(CHUNK_BYTES + 1))


HEADER = UpdateHeader(
    UpdateKey(RunId("r"), 1), PlanId(DIGEST), WeightsId(DIGEST), Body(WeightsId(DIGEST), 4)
)


@pytest.fixture
def servicer():
    return Counting()


@pytest.fixture
async def address(tmp_path, servicer):
    files = Authority.make(tmp_path / "keys").issue(Role.ORCHESTRATOR, "o")
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], files.authority.read_bytes(), True)
    server = grpc.aio.server()
    add_GatewayServiceServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}", files
    await server.stop(0)


async def test_what_may_not_leave_is_an_error_of_ours_and_no_call_is_made(address, servicer):
    where, files = address
    named = replace(HEADER, key=UpdateKey(RunId("Mrs Kanarienvogel"), 1))
    async with GrpcClient(where, files) as client:
        with pytest.raises(NotInManifest, match="software_version must be a version"):
            await client.register(Versions(1, "0.1.0+ward7"))
        with pytest.raises(NotInManifest, match=r"header\.key\.run_id must be a name"):
            await client.submit_update(named, too_long())
        assert servicer.calls == 0
        assert (await client.register(Versions(1, "0.1.0"))).gateway == "o"  # it goes on


async def test_what_breaks_a_stream_off_comes_out_of_the_call(address, servicer):
    """gRPC would forget it, and take the call for cancelled: the task would end without a word."""
    where, files = address
    async with GrpcClient(where, files) as client:
        calls = [client.submit_update(HEADER, chunks) for chunks in (too_long(), broken_chunks())]
        unlisted, broken = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(unlisted, NotInManifest)
    assert unlisted.field == "SubmitUpdateRequest.chunk.data"
    assert isinstance(broken, KeyError)


@pytest.mark.parametrize("servicer", [Torn()])
async def test_an_upload_is_resumed_where_it_was_torn_though_other_addresses_follow(
    address, servicer
):
    where, files = address
    async with GrpcClient((where, "127.0.0.1:1"), files) as client:
        receipt = await transfers.send(client, HEADER, memoryview(b"1234"))
    assert receipt.digest == DIGEST
    assert servicer.got == [Torn.HELD]


async def test_a_call_that_is_cancelled_stays_cancelled(address):
    where, files = address
    waiting = asyncio.Event()

    async def endless():
        waiting.set()
        await asyncio.Event().wait()
        yield Chunk(0, b"")

    async with GrpcClient(where, files) as client:
        call = asyncio.create_task(client.submit_update(HEADER, endless()))
        await waiting.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_what_it_does_not_understand_is_passed_over(address):
    where, files = address
    async with GrpcClient(where, files) as client:
        news = [each async for each in client.watch(LEASE, ())]
    assert [each.instruction for each in news] == [Review(PlanId(DIGEST))]
