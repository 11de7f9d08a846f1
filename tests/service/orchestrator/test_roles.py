"""Every RPC by every role, over the wire, beside the table; and that the table is whole."""

from __future__ import annotations

import grpc
import pytest
from grpc.aio import _server as aio_server

from common.channel import open_channel
from common.tls import Role
from orchestrator.auth import PERMISSIONS, SERVICES_OF_PEOPLE, calling
from orchestrator.callers import Callers
from orchestrator.config import Limits
from orchestrator.doors import MembersDoor
from orchestrator.fencing import Fence
from orchestrator.quotas import Quotas
from orchestrator.refusals import Refusals
from orchestrator.rpc_errors import GuardingInterceptor
from protos.federation.v1 import operator_pb2 as pb
from protos.federation.v1.operator_pb2_grpc import (
    OperatorServiceServicer,
    OperatorServiceStub,
    add_OperatorServiceServicer_to_server,
)
from tests.every_rpc import outcome_of, refused_of
from tests.fakes import FakeClock
from tests.on_record import audit_log

Code = grpc.StatusCode


@pytest.fixture
def registered(monkeypatch) -> dict[str, set[str]]:
    """The methods that each server in turn is given, as gRPC is told of them."""
    by_server: dict[str, set[str]] = {}

    def note(server, service: str, handlers) -> None:
        by_server.setdefault(id(server), set()).update(f"/{service}/{name}" for name in handlers)

    monkeypatch.setattr(aio_server.Server, "add_registered_method_handlers", note)
    return by_server


@pytest.fixture
async def served(federation):
    async with federation.serving():
        yield federation


async def test_every_method_that_is_served_has_an_entry_and_none_lacks_a_method(
    registered, federation
):
    async with federation.serving():
        probes, everybody = registered.values()
    assert everybody == set(PERMISSIONS)
    assert probes < everybody


@pytest.mark.parametrize("role", Role)
async def test_every_method_answers_each_role_as_the_table_says(served, role):
    files = served.authority.issue(role, "somebody")
    async with open_channel(served.address, files) as channel:
        refused = await refused_of(channel, PERMISSIONS)
    assert set(refused) == {path for path in PERMISSIONS if role not in PERMISSIONS[path]}
    assert set(refused.values()) <= {"RoleRefused"}  # of the guard, before any handler


class Noting(OperatorServiceServicer):
    """Notes which handlers run, and who is calling."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def CancelRun(self, request, context):  # noqa: N802
        self.ran.append(f"CancelRun by {calling().uri}")
        return pb.CancelRunResponse()

    async def WatchRun(self, request, context):  # noqa: N802
        self.ran.append(f"WatchRun by {calling().uri}")
        yield pb.WatchRunResponse()

    async def UploadWeights(self, request_iterator, context):  # noqa: N802
        async for _ in request_iterator:
            self.ran.append("a message was read")
        return pb.UploadWeightsResponse()


async def test_no_handler_begins_for_a_caller_who_is_refused(federation, engine):
    service, server = (
        Noting(),
        grpc.aio.server(
            interceptors=[
                GuardingInterceptor(
                    MembersDoor("acme", Callers(FakeClock())),
                    Quotas(Limits()),
                    Refusals(audit_log(Fence(engine)), FakeClock(), of_one=9, of_all=9),
                )
            ]
        ),
    )
    add_OperatorServiceServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", federation.config.tls.server_credentials())
    await server.start()
    address, codes = f"127.0.0.1:{port}", []
    async with open_channel(address, federation.authority.issue(Role.GATEWAY, "a")) as channel:
        for name in ("CancelRun", "WatchRun", "UploadWeights"):
            path = f"/federation.v1.OperatorService/{name}"
            codes.append((await outcome_of(channel, path)).code)
    assert (codes, service.ran) == ([Code.PERMISSION_DENIED] * 3, [])
    async with open_channel(address, federation.authority.issue(Role.OPERATOR, "o")) as channel:
        stub = OperatorServiceStub(channel)
        await stub.CancelRun(pb.CancelRunRequest(), timeout=5)
        _ = [each async for each in stub.WatchRun(pb.WatchRunRequest(), timeout=5)]
    await server.stop(None)
    who = "fed://acme/operator/o"
    assert service.ran == [f"CancelRun by {who}", f"WatchRun by {who}"]


def test_people_are_offered_nothing_of_gateways():
    offered = [path for path in PERMISSIONS if path.split("/")[1] in SERVICES_OF_PEOPLE]
    assert not any(PERMISSIONS[path] == {Role.GATEWAY} for path in offered)
    assert "federation.v1.OperatorService" in SERVICES_OF_PEOPLE
    assert "federation.v1.GatewayService" not in SERVICES_OF_PEOPLE
