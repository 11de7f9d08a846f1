"""Turned away at once: whoever is revoked ends in the middle of a call, and begins no other."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from time import monotonic  # noqa: TID251 - the claim is about real seconds

import grpc
import pytest

from common.certificates import certificate_of, read_chain
from common.channel import open_channel
from common.errors import PermissionRefused
from common.key_files import read_file
from common.membership import Member
from common.tls import Role, TlsFiles
from gateway.client import GrpcClient
from orchestrator.callers import Callers
from orchestrator.roster import LOOK_S, Roster
from orchestrator.server import listening
from protos.federation.v1.gateway_pb2_grpc import GatewayServiceStub
from tests.fakes import VERSIONS, FakeClock
from tests.members import GATEWAY_A, Clinic
from tests.on_record import audit_log

PATIENCE_S = 10.0  # what is promised


@pytest.fixture
async def clinic(tmp_path):
    """A federation that enrols."""
    clinic = Clinic(tmp_path)
    async with clinic.serving():
        yield clinic


async def watching(client: GrpcClient) -> asyncio.Task[PermissionRefused]:
    """Open a Watch; return what waits for its refusal, once the stream is open."""
    registration = await client.register(VERSIONS)

    async def refused() -> PermissionRefused:
        try:
            async for _ in client.watch(registration.lease, ()):
                pass
        except PermissionRefused as error:
            return error
        raise AssertionError("the stream ended without a refusal")

    return asyncio.create_task(refused())


async def is_open(clinic: Clinic, count: int = 1) -> None:
    """Return once so many calls are under way."""
    async with asyncio.timeout(10):
        while len(clinic.serving_now.members.callers._open) < count:  # noqa: ASYNC110 - nothing tells when one begins
            await asyncio.sleep(0.01)


def print_of(files: TlsFiles) -> str:
    return certificate_of(read_chain(read_file(files.certificate))[0]).fingerprint


async def test_an_open_stream_of_a_revoked_member_ends_at_once(clinic):
    async with GrpcClient(clinic.address, await clinic.enrolled("a")) as client:
        stream = await watching(client)
        await is_open(clinic)
        async with clinic.admin() as admin:
            began = monotonic()
            ended = await admin.revoke(GATEWAY_A)
        await asyncio.wait([stream], timeout=PATIENCE_S)
        assert stream.done()
        assert monotonic() - began < PATIENCE_S
        assert ended == 1
        assert "was revoked" in str(stream.result())
        with pytest.raises(PermissionRefused, match="was revoked"):
            await client.register(VERSIONS)


async def test_a_call_that_waits_for_more_of_a_revoked_member_ends_at_once(clinic):
    """As an upload does whose bytes come slowly: its handler waits for the next message."""
    async with open_channel(clinic.address, await clinic.enrolled("a")) as channel:
        call = GatewayServiceStub(channel).SubmitUpdate()
        await is_open(clinic)
        clinic.serving_now.members.roster.revoke(GATEWAY_A, by="ada")
        code = await asyncio.wait_for(call.code(), PATIENCE_S)
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_others_go_on(clinic):
    async with (
        GrpcClient(clinic.address, await clinic.enrolled("a")) as one,
        GrpcClient(clinic.address, await clinic.enrolled("b")) as other,
    ):
        streams = [await watching(one), await watching(other)]
        await is_open(clinic, 2)
        clinic.serving_now.members.roster.revoke(GATEWAY_A, by="ada")
        await asyncio.wait_for(streams[0], PATIENCE_S)
        assert not streams[1].done()
        assert (await other.register(VERSIONS)).gateway == "b"
        streams[1].cancel()


async def test_who_was_revoked_elsewhere_is_turned_away_within_ten_seconds(clinic):
    """Another process wrote it to the same tables: nobody tells this one."""
    assert LOOK_S < PATIENCE_S
    async with GrpcClient(clinic.address, await clinic.enrolled("a")) as client:
        stream = await watching(client)
        await is_open(clinic)
        fence, strangers = clinic.serving_now.orchestrator.fence, Callers(clinic.clock)
        Roster(fence, clinic.clock, strangers, audit_log(fence)).revoke(GATEWAY_A, by="ada")
        await asyncio.wait_for(stream, PATIENCE_S)


async def test_whoever_enrols_again_is_welcome_and_the_older_certificate_is_not(clinic):
    older = await clinic.enrolled("a")
    issued = clinic.issue(Role.GATEWAY, "a")  # by hand: it is in no table
    async with clinic.admin() as admin:
        await admin.revoke(GATEWAY_A)
    newer = await clinic.enrolled("a")
    async with GrpcClient(clinic.address, newer) as client:
        assert (await client.register(VERSIONS)).gateway == "a"
    for files in (older, issued):
        async with GrpcClient(clinic.address, files) as client:
            with pytest.raises(PermissionRefused, match="was revoked"):
                await client.register(VERSIONS)


async def test_one_certificate_is_revoked_by_its_fingerprint_whoever_signed_it(clinic):
    issued, enrolled = clinic.issue(Role.GATEWAY, "a"), await clinic.enrolled("a")
    async with clinic.admin() as admin:
        await admin.revoke(print_of(issued))
    async with GrpcClient(clinic.address, issued) as client:
        with pytest.raises(PermissionRefused, match="was revoked"):
            await client.register(VERSIONS)
    async with GrpcClient(clinic.address, enrolled) as client:
        assert (await client.register(VERSIONS)).gateway == "a"


async def test_another_role_of_the_same_name_is_another_member(clinic):
    async with clinic.admin() as admin:
        await admin.revoke(Member(Role.GATEWAY, "ada"))
        assert (await admin.roll()).revocations


async def test_a_certificate_that_ends_takes_its_open_stream_with_it(clinic):
    async with GrpcClient(clinic.address, await clinic.enrolled("a")) as client:
        stream = await watching(client)
        await is_open(clinic)
        clinic.clock.ahead = timedelta(days=8)
        assert "ended at" in str(await asyncio.wait_for(stream, PATIENCE_S))
        with pytest.raises(PermissionRefused, match="ended at"):
            await client.register(VERSIONS)


async def test_a_revocation_outlives_a_restart(tmp_path):
    clinic = Clinic(tmp_path)
    async with clinic.serving() as server:
        files = await clinic.enrolled("a")
        server.members.roster.revoke(GATEWAY_A, by="ada")
    async with listening(clinic.config) as server, GrpcClient(server.address, files) as client:
        with pytest.raises(PermissionRefused, match="was revoked"):
            await client.register(VERSIONS)


async def test_an_orchestrator_that_can_no_longer_look_for_revocations_stops(tmp_path, monkeypatch):
    clock = FakeClock()
    async with listening(Clinic(tmp_path).config, clock=clock) as server:

        def broken() -> int:
            raise ValueError

        monkeypatch.setattr(server.members.roster, "refresh", broken)
        await asyncio.sleep(0)
        clock.advance(LOOK_S)
        await asyncio.wait_for(server.orchestrator.runs.halted.wait(), 10)
        assert isinstance(server.orchestrator.runs.failure, ValueError)
