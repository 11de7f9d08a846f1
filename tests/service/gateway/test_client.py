"""What a gateway makes of an orchestrator that is newer than itself."""

from __future__ import annotations

import grpc
import pytest

from common.ids import PlanId
from common.protocol import Review
from common.tls import Role
from gateway.client import GrpcClient
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1.gateway_pb2_grpc import (
    GatewayServiceServicer,
    add_GatewayServiceServicer_to_server,
)
from tests.certificates import Authority

DIGEST = "ab" * 32


class Newer(GatewayServiceServicer):
    """Says something that this version has no name for, then something that it has."""

    async def Watch(self, request, context):  # noqa: N802 (gRPC's name)
        yield pb.WatchResponse(run_id="r")  # a field that is not known here is as if unset
        unknown = pb.WatchResponse(run_id="r")
        unknown.stop.reason = 99
        yield unknown
        yield pb.WatchResponse(run_id="r", review=pb.Review(plan_digest=DIGEST))


@pytest.fixture
async def address(tmp_path):
    files = Authority.make(tmp_path / "keys").issue(Role.ORCHESTRATOR, "o")
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], files.authority.read_bytes(), True)
    server = grpc.aio.server()
    add_GatewayServiceServicer_to_server(Newer(), server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}", files
    await server.stop(0)


async def test_what_it_does_not_understand_is_passed_over(address):
    where, files = address
    async with GrpcClient(where, files) as client:
        news = [each async for each in client.watch("lease", ())]
    assert [each.instruction for each in news] == [Review(PlanId(DIGEST))]
