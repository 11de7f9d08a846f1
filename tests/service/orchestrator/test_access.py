"""Who may speak to the orchestrator, and what anybody may ask of it."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health, health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub, add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from common.channel import open_channel
from common.errors import FederationError
from common.ids import RunId
from common.tls import Role
from orchestrator.callers import Callers
from orchestrator.config import Limits
from orchestrator.doors import MembersDoor
from orchestrator.fencing import Fence
from orchestrator.probe import check_health
from orchestrator.quotas import Quotas
from orchestrator.refusals import Refusals
from orchestrator.rpc_errors import GuardingInterceptor
from protos.federation.v1 import operator_pb2 as pb
from protos.federation.v1.operator_pb2_grpc import OperatorServiceStub
from tests.certificates import Authority
from tests.fakes import VERSIONS, FakeClock
from tests.on_record import audit_log

Code = grpc.StatusCode


@pytest.fixture
async def served(federation):
    async with federation.serving():
        yield federation


async def code_of(call) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_without_a_certificate_nothing_is_answered(served):
    files = served.authority.issue(Role.GATEWAY, "a")
    credentials = grpc.ssl_channel_credentials(files.authority.read_bytes())
    async with grpc.aio.secure_channel(served.address, credentials) as channel:
        call = OperatorServiceStub(channel).ListRuns(pb.ListRunsRequest(), timeout=5)
        assert await code_of(call) is Code.UNAVAILABLE


async def test_a_certificate_of_a_foreign_authority_is_not_trusted(served, tmp_path):
    ours = served.authority.issue(Role.OPERATOR, "olga")
    foreign = Authority.make(tmp_path / "foreign").issue(Role.OPERATOR, "olga")
    mixed = foreign.model_copy(update={"authority": ours.authority})
    async with open_channel(served.address, mixed) as channel:
        call = OperatorServiceStub(channel).ListRuns(pb.ListRunsRequest(), timeout=5)
        assert await code_of(call) is Code.UNAVAILABLE


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("fed://other/operator/olga", Code.UNAUTHENTICATED),
        ("https://acme/operator/olga", Code.UNAUTHENTICATED),
        ("fed://acme/gateway/a", Code.PERMISSION_DENIED),
        ("fed://acme/orchestrator/o", Code.PERMISSION_DENIED),
    ],
)
async def test_only_operators_of_the_federation_operate(served, uri, code):
    async with open_channel(served.address, served.authority.issue_uri(uri)) as channel:
        stub = OperatorServiceStub(channel)
        assert await code_of(stub.ListRuns(pb.ListRunsRequest(), timeout=5)) is code
        stream = stub.WatchRun(pb.WatchRunRequest(run_id="r"), timeout=5)
        assert await code_of(stream.read()) is code


async def test_an_operator_is_no_gateway(served):
    client = await served.client("olga", served.authority.issue(Role.OPERATOR, "olga"))
    with pytest.raises(FederationError, match=r"role operator .* may not call"):
        await client.register(VERSIONS)


async def test_the_certificate_says_who_registers(served):
    client = await served.client("a")
    assert (await client.register(VERSIONS)).gateway == "a"


async def test_health_is_told_to_every_member(served):
    async with open_channel(served.address, served.authority.issue(Role.GATEWAY, "a")) as channel:
        stub = HealthStub(channel)
        response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        watched = await stub.Watch(health_pb2.HealthCheckRequest(), timeout=5).read()
    assert response.status == watched.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_service_that_is_not_served_has_no_health(served):
    async with open_channel(served.address, served.authority.issue(Role.GATEWAY, "a")) as channel:
        request = health_pb2.HealthCheckRequest(service="nothing")
        assert await code_of(HealthStub(channel).Check(request, timeout=5)) is Code.NOT_FOUND


async def test_reflection_lists_the_services(served):
    async with open_channel(served.address, served.authority.issue(Role.GATEWAY, "a")) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = ServerReflectionStub(channel)
        (response,) = [r async for r in stub.ServerReflectionInfo(iter([request]), timeout=5)]
    assert {service.name for service in response.list_services_response.service} == {
        "federation.v1.AuditService",
        "federation.v1.EnrolmentService",
        "federation.v1.GatewayService",
        "federation.v1.MembershipService",
        "federation.v1.OperatorService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_an_unknown_method_is_unimplemented(served):
    async with open_channel(served.address, served.authority.issue(Role.GATEWAY, "a")) as channel:
        call = channel.unary_unary("/federation.v1.GatewayService/Nothing")(b"", timeout=5)
        assert await code_of(call) is Code.UNIMPLEMENTED


class Broken(health.aio.HealthServicer):
    """A service with a bug."""

    async def Check(self, request, context):  # noqa: N802 - gRPC's
        raise ValueError("a secret")


async def test_a_bug_says_nothing_of_its_inside(federation, engine):
    refused = Refusals(audit_log(Fence(engine)), FakeClock(), of_one=1, of_all=1)
    guard = GuardingInterceptor(
        MembersDoor("acme", Callers(FakeClock())), Quotas(Limits()), refused
    )
    server = grpc.aio.server(interceptors=[guard])
    add_HealthServicer_to_server(Broken(), server)
    port = server.add_secure_port("127.0.0.1:0", federation.config.tls.server_credentials())
    await server.start()
    files = federation.authority.issue(Role.GATEWAY, "a")
    async with open_channel(f"127.0.0.1:{port}", files) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    await server.stop(None)
    assert caught.value.code() is Code.INTERNAL
    assert caught.value.details() == "the orchestrator has a bug; its log says more"


async def test_a_probe_needs_no_certificate(federation):
    socket = federation.config.health_socket_path
    assert not await check_health(socket)
    async with federation.serving():
        assert await check_health(socket)
    assert not await check_health(socket)


async def test_a_probes_socket_answers_nothing_else(served):
    async with grpc.aio.insecure_channel(f"unix:{served.config.health_socket_path}") as channel:
        call = OperatorServiceStub(channel).ListRuns(pb.ListRunsRequest(), timeout=5)
        assert await code_of(call) is Code.UNIMPLEMENTED


async def test_the_address_is_found_in_a_file_while_it_is_served(federation):
    async with federation.serving() as server:
        assert federation.config.address_file.read_text() == server.address
    assert not federation.config.address_file.exists()


async def test_a_run_that_does_not_exist_is_not_found(served):
    operator = await served.operator()
    with pytest.raises(FederationError, match="there is no run 'r' here") as caught:
        await operator.cancel_run(RunId("r"))
    assert caught.value.__cause__.code() is Code.NOT_FOUND
