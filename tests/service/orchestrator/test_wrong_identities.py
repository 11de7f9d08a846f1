"""Fourteen wrong identities, over real sockets: each is refused before any handler runs."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import wraps
from inspect import isasyncgenfunction

import grpc
import grpc.aio
import pytest

from cli import pki
from common.channel import open_channel
from common.enrolment import make_request
from common.issuing import new_key
from common.tls import Identity, Role, TlsFiles
from orchestrator.enrolment_service import EnrolmentService, MembershipService
from orchestrator.gateway_service import GatewayService
from orchestrator.operator_service import OperatorService
from protos.federation.v1 import enrolment_pb2, gateway_pb2
from protos.federation.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from protos.federation.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.members import GATEWAY_A, SERVER, Clinic, without_certificate

Code = grpc.StatusCode
SERVICES = (GatewayService, OperatorService, EnrolmentService, MembershipService)
DATA, HEADERS, SETTINGS = 0, 1, 4  # kinds of HTTP/2's frames
END_STREAM, END_HEADERS = 1, 4


@pytest.fixture
def entered(monkeypatch) -> list[str]:
    """The names of the handlers that were entered, in their order."""
    names: list[str] = []

    def counted(handler):
        if isasyncgenfunction(handler):

            @wraps(handler)
            async def stream(self, request, context):
                names.append(handler.__name__)
                async for response in handler(self, request, context):
                    yield response

            return stream

        @wraps(handler)
        async def single(self, request, context):
            names.append(handler.__name__)
            return await handler(self, request, context)

        return single

    for service in SERVICES:
        for name, handler in vars(service).items():
            if name[0].isupper():
                monkeypatch.setattr(service, name, counted(handler))
    return names


@pytest.fixture
async def clinic(tmp_path, entered):
    """A federation that enrols; its handlers count who comes in."""
    clinic = Clinic(tmp_path)
    async with clinic.serving():
        yield clinic


async def register(clinic: Clinic, files: TlsFiles) -> Code:
    """Call as a gateway does first; return what comes of it."""
    async with open_channel(clinic.address, files) as channel:
        return await registered(channel)


async def registered(channel: grpc.aio.Channel) -> Code:
    request = gateway_pb2.RegisterRequest(protocol_version=1, software_version="0.1.0")
    call = GatewayServiceStub(channel).Register(request, timeout=10)
    return await call.code()


async def enrol(clinic: Clinic, secret: bytes, address: str, name: str = "a") -> Code:
    """Use a token's secret for a new key and a name; return what comes of it."""
    request = make_request(new_key(), Identity("acme", Role.GATEWAY, name))
    message = enrolment_pb2.EnrolRequest(secret=secret, request=request)
    files = clinic.issue(Role.GATEWAY, "a")
    async with grpc.aio.secure_channel(address, without_certificate(files)) as channel:
        return await EnrolmentServiceStub(channel).Enrol(message, timeout=10).code()


async def no_certificate(clinic: Clinic) -> Code:
    credentials = without_certificate(clinic.issue(Role.GATEWAY, "a"))
    async with grpc.aio.secure_channel(clinic.address, credentials) as channel:
        return await registered(channel)


async def expired(clinic: Clinic) -> Code:
    return await register(clinic, clinic.forged(days=(-2.0, -1.0)))


async def not_yet_valid(clinic: Clinic) -> Code:
    return await register(clinic, clinic.forged(days=(1.0, 2.0)))


async def foreign_authority_of_the_same_name(clinic: Clinic) -> Code:
    pki.init(clinic.folder / "foreign", "acme")
    foreign = pki.read_authority(clinic.folder / "foreign")
    return await register(clinic, clinic.forged(signer=foreign))


async def wrong_role(clinic: Clinic) -> Code:
    return await register(clinic, clinic.issue(Role.OPERATOR, "olga"))


async def wrong_usage(clinic: Clinic) -> Code:
    return await register(clinic, clinic.forged(usage=SERVER))


async def revoked(clinic: Clinic) -> Code:
    files = clinic.issue(Role.GATEWAY, "a")
    clinic.serving_now.members.roster.revoke(GATEWAY_A, by="ada")
    return await register(clinic, files)


async def stolen_name(clinic: Clinic) -> Code:
    token = await clinic.token()
    return await enrol(clinic, token.secret, token.address, name="b")


async def self_signed(clinic: Clinic) -> Code:
    return await register(clinic, clinic.self_signed())


async def weak_key(clinic: Clinic) -> Code:
    return await register(clinic, clinic.forged(weak=True))


async def wrong_federation(clinic: Clinic) -> Code:
    return await register(clinic, clinic.forged(["fed://other/gateway/a"]))


async def old_tls(clinic: Clinic) -> Code:
    files = clinic.issue(Role.GATEWAY, "a")
    answer = await asyncio.to_thread(over_tls_1_2, clinic.address, files)
    assert b"the connection is TLSv1.2, TLS 1.3 is needed" in answer
    return Code.UNAUTHENTICATED


async def used_token(clinic: Clinic) -> Code:
    token = await clinic.token()
    assert await enrol(clinic, token.secret, token.address) is Code.OK
    return await enrol(clinic, token.secret, token.address)


async def expired_token(clinic: Clinic) -> Code:
    token = await clinic.token(lifetime_s=60.0)
    clinic.clock.ahead = timedelta(seconds=61)
    return await enrol(clinic, token.secret, token.address)


WRONG: dict[Callable[[Clinic], Awaitable[Code]], tuple[Code, list[str]]] = {
    # UNAVAILABLE: the handshake failed; beside it, what was let in before the wrong one
    no_certificate: (Code.UNAVAILABLE, []),
    expired: (Code.UNAVAILABLE, []),
    not_yet_valid: (Code.UNAVAILABLE, []),
    foreign_authority_of_the_same_name: (Code.UNAVAILABLE, []),
    wrong_role: (Code.PERMISSION_DENIED, []),
    wrong_usage: (Code.UNAVAILABLE, []),
    revoked: (Code.UNAUTHENTICATED, []),
    stolen_name: (Code.PERMISSION_DENIED, ["CreateToken"]),
    self_signed: (Code.UNAVAILABLE, []),
    weak_key: (Code.UNAUTHENTICATED, []),
    wrong_federation: (Code.UNAUTHENTICATED, []),
    old_tls: (Code.UNAUTHENTICATED, []),
    used_token: (Code.UNAUTHENTICATED, ["CreateToken", "Enrol"]),
    expired_token: (Code.UNAUTHENTICATED, ["CreateToken"]),
}


@pytest.mark.parametrize("call", WRONG, ids=lambda call: call.__name__)
async def test_a_wrong_identity_is_refused_before_any_handler_runs(clinic, entered, call):
    need, before = WRONG[call]
    assert await call(clinic) is need
    assert entered == before


def test_there_are_fourteen():
    assert len(WRONG) == 14


async def test_the_right_identity_is_let_in(clinic, entered):
    assert await register(clinic, clinic.forged()) is Code.OK
    assert entered == ["Register"]


@pytest.mark.parametrize("uris", [[], ["fed://acme/gateway/a", "fed://acme/admin/a"]])
async def test_a_certificate_names_one_member(clinic, entered, uris):
    assert await register(clinic, clinic.forged([*uris, "https://acme"])) is Code.UNAUTHENTICATED
    assert not entered


async def test_where_members_call_nobody_enrols(clinic, entered):
    token = await clinic.token()
    entered.clear()
    message = enrolment_pb2.EnrolRequest(
        secret=token.secret, request=make_request(new_key(), token.identity)
    )
    async with open_channel(clinic.address, clinic.issue(Role.ADMIN, "ada")) as channel:
        call = EnrolmentServiceStub(channel).Enrol(message, timeout=10)
        assert await call.code() is Code.PERMISSION_DENIED
    assert not entered


async def test_where_members_enrol_nothing_else_is_answered(clinic, entered):
    address = clinic.serving_now.members.enrolments.address
    async with open_channel(address, clinic.issue(Role.GATEWAY, "a")) as channel:
        renewal = EnrolmentServiceStub(channel).Renew(enrolment_pb2.RenewRequest(), timeout=10)
        assert await renewal.code() is Code.PERMISSION_DENIED
        assert await registered(channel) is Code.UNIMPLEMENTED
    assert not entered


def over_tls_1_2(address: str, files: TlsFiles) -> bytes:
    """Register over TLS 1.2, which no client of gRPC can be made to do; return the raw answer."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.authority)
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        connection.sendall(_registering())
        answer = b""
        while b"TLS 1.3" not in answer and (more := connection.recv(1 << 14)):
            answer += more
    return answer


def _registering() -> bytes:
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": "/federation.v1.GatewayService/Register",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())
    message = gateway_pb2.RegisterRequest(protocol_version=1, software_version="0.1.0")
    body = message.SerializeToString()
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(SETTINGS, 0, 0, b"")
        + _frame(HEADERS, END_HEADERS, 1, block)
        + _frame(DATA, END_STREAM, 1, struct.pack(">BI", 0, len(body)) + body)
    )


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body
