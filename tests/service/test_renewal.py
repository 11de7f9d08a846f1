"""Certificates that follow each other: files swapped, connections renewed, no round lost."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from cli import pki
from cli.operator_client import OperatorClient
from common import issuing, key_files
from common.certificates import Certificate, certificate_of, to_pem
from common.channel import open_channel
from common.disk import SystemDisk
from common.enrolment import make_request, read_request
from common.errors import PermissionRefused
from common.ids import RunId
from common.issuing import Period
from common.joining import WrongCertificate
from common.key_files import KeyDoesNotFit, KeysNotWritten, read_file, read_pair, replace_pair
from common.protocol import RunState
from common.renewing import due, present, renew_files
from common.tls import Identity, Role, TlsFiles
from gateway.client import GrpcClient
from gateway.renewal import Renewal
from gateway.workshop import Workshop
from orchestrator.config import Enrolment
from orchestrator.roster import KEPT_OF_ONE
from tests.at_work import SITE, at_work, plan_for, settings
from tests.fakes import EFFECTIVE, INITIAL, VERSIONS, FakeClock, FakeGateway, plan_of
from tests.members import GATEWAY_A, Clinic, files_in
from tests.signing import order
from tests.tiny_task import TinyTask

LABELS = ("no", "yes")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Serving = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
async def clinic(tmp_path):
    """A federation that enrols."""
    clinic = Clinic(tmp_path)
    async with clinic.serving():
        yield clinic


@pytest.fixture
def pair(tmp_path):
    """The files of a member, and another pair of it that fits."""
    pki.init(tmp_path / "pki", "acme")
    for name in ("older", "newer"):
        pki.issue(tmp_path / "pki", role=Role.GATEWAY, name="a", out=tmp_path / name)
    older, newer = files_in(tmp_path / "older"), files_in(tmp_path / "newer")
    return older, (newer.certificate.read_bytes(), newer.key.read_bytes())


def test_a_certificate_is_due_at_two_thirds_of_its_life():
    identity = Identity("acme", Role.GATEWAY, "a")
    week = Certificate(identity, "", NOON - issuing.SLACK, NOON + timedelta(days=6))
    assert due(week) == NOON + timedelta(days=4)


async def test_a_member_renews_with_a_key_of_its_own(clinic):
    files = await clinic.enrolled("a")
    before, key = present(files), files.key.read_bytes()
    async with GrpcClient(clinic.address, files) as client:
        await renew_files(files, client.renew)
    assert present(files).fingerprint != before.fingerprint
    assert present(files).identity == before.identity
    assert files.key.read_bytes() != key
    async with GrpcClient(clinic.address, files) as client:
        assert (await client.register(VERSIONS)).gateway == "a"


async def test_whoever_was_revoked_renews_no_more(clinic):
    files = await clinic.enrolled("a")
    clinic.serving_now.members.roster.revoke(GATEWAY_A, by="ada")
    async with GrpcClient(clinic.address, files) as client:
        with pytest.raises(PermissionRefused, match="was revoked"):
            await renew_files(files, client.renew)


@pytest.mark.parametrize(
    ("begins", "lasts"), [(timedelta(0), timedelta(hours=1)), (timedelta(days=400), timedelta(9))]
)
async def test_a_certificate_that_would_be_good_for_less_is_not_put_in_place(
    tmp_path, begins, lasts
):
    """An orchestrator that was broken into could lock a site out by it."""
    pki.init(tmp_path / "pki", "acme")
    pki.issue(tmp_path / "pki", role=Role.GATEWAY, name="a", out=tmp_path / "a")
    files = files_in(tmp_path / "a")
    before, authority = present(files), pki.read_authority(tmp_path / "pki")

    async def signed(der: bytes) -> bytes:
        request, since = read_request(der), before.begins + issuing.SLACK + begins
        leaf = issuing.certify(authority, request.key, request.identity, Period(since, lasts))
        return to_pem([leaf, authority.certificate])

    with pytest.raises(WrongCertificate, match="the present one until"):
        await renew_files(files, signed)
    assert present(files) == before


async def test_whoever_renews_for_ever_fills_no_table(clinic):
    files = await clinic.enrolled("a")
    async with GrpcClient(clinic.address, files) as client:
        for _ in range(KEPT_OF_ONE + 3):
            await client.renew(make_request(issuing.new_key(), present(files).identity))
    listed = [each.member.name for each in clinic.serving_now.members.roster.roll().certificates]
    assert listed.count("a") == KEPT_OF_ONE


async def test_a_running_gateway_renews_by_itself_when_it_is_due_and_not_before(clinic):
    files, clock = await clinic.enrolled("a"), FakeClock()
    before = present(files)
    clock.wall = lambda: before.begins + issuing.SLACK + timedelta(days=clock.now())
    async with GrpcClient(clinic.address, files) as client:
        renewing = asyncio.create_task(Renewal(files, client, clock, look_s=1.0).run())
        for _ in range(4):  # days
            clock.advance(1.0)
            await client.register(VERSIONS)
        assert present(files) == before
        clock.advance(1.0)
        async with asyncio.timeout(10):
            while present(files) == before:  # noqa: ASYNC110 - files tell nobody
                await asyncio.sleep(0.01)
        renewing.cancel()


async def test_a_gateway_that_renews_after_every_round_loses_none(clinic, tmp_path):
    """Its Watch is broken off each time, in the middle of the next round, and nothing else is."""
    files, task = await clinic.enrolled("a"), TinyTask()
    plan, initial = plan_for(task, LABELS, units=60, rounds={"count": 4})
    workshop = Workshop(SITE, settings(tmp_path / "site", files, LABELS), task, None)
    used = {present(files).fingerprint}
    async with (
        GrpcClient(clinic.address, files) as client,
        at_work(workshop, client),
        OperatorClient(clinic.address, clinic.issue(Role.OPERATOR, "olga")) as operator,
    ):
        await operator.upload_weights(initial.to_bytes())
        await operator.start_run(*order("r", plan))
        published, status = 0, None
        async with asyncio.timeout(50):
            async for status, _ in operator.watch_run(RunId("r")):
                if status.published_round > published:
                    published = status.published_round
                    await renew_files(files, client.renew)
                    client.redial()
                    used.add(present(files).fingerprint)
    assert (status.state, status.gateways[0].rounds_counted) == (RunState.COMPLETED, 4)
    assert len(used) >= 3
    assert charged(tmp_path / "site") == [("r", 1), ("r", 2), ("r", 3), ("r", 4)]


async def test_after_a_renewal_a_plan_is_accepted_with_the_new_key(clinic):
    files, operator_files = await clinic.enrolled("a"), clinic.issue(Role.OPERATOR, "olga")
    async with (
        GrpcClient(clinic.address, files) as client,
        OperatorClient(clinic.address, operator_files) as operator,
    ):
        await renew_files(files, client.renew)
        client.redial()
        await client.register(VERSIONS)
        await operator.upload_weights(INITIAL.to_bytes())
        await operator.start_run(*order("r", plan_of("a", "b")))
        await FakeGateway("a", client).accept("r")
        status, _ = await operator.run(RunId("r"))
    assert status.gateways[0].answer == EFFECTIVE


def charged(state: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(state / "ledger.sqlite")) as ledger:
        return ledger.execute("select run, round from charges order by sequence").fetchall()


async def test_a_watch_ends_quietly_when_the_client_redials(clinic):
    async with GrpcClient(clinic.address, await clinic.enrolled("a")) as client:
        registration = await client.register(VERSIONS)

        async def all_news() -> list:
            return [news async for news in client.watch(registration.lease, ())]

        watching = asyncio.create_task(all_news())
        while not clinic.serving_now.members.callers._open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        client.redial()
        assert await asyncio.wait_for(watching, 10) == []


async def test_a_watch_that_is_cancelled_is_cancelled(clinic):
    async with GrpcClient(clinic.address, await clinic.enrolled("a")) as client:
        registration = await client.register(VERSIONS)
        watching = asyncio.create_task(anext(client.watch(registration.lease, ())))
        await asyncio.sleep(0)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching


async def shown(clinic: Clinic) -> str:
    """Return the fingerprint of the certificate that the orchestrator shows, which it proves."""
    async with open_channel(clinic.address, clinic.issue(Role.GATEWAY, "a")) as channel:
        answer = await HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == Serving
    return certificate_of(await asyncio.to_thread(leaf_of, clinic)).fingerprint


def leaf_of(clinic: Clinic) -> x509.Certificate:
    files = clinic.issue(Role.GATEWAY, "a")
    host, _, port = clinic.address.rpartition(":")
    context = ssl.create_default_context(cafile=str(files.authority))
    context.load_cert_chain(files.certificate, files.key)
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der)


async def test_the_orchestrators_certificate_is_swapped_without_a_restart(clinic):
    """Calls on connections from before go on; connections made after see the newer one."""
    files = clinic.issue(Role.ORCHESTRATOR, "orchestrator")
    before = present(files).fingerprint
    assert await shown(clinic) == before
    async with open_channel(clinic.address, clinic.issue(Role.GATEWAY, "a")) as older:
        request = health_pb2.HealthCheckRequest()
        await HealthStub(older).Check(request, timeout=10)
        newer = clinic.issue(Role.ORCHESTRATOR, "newer")
        replace_pair(
            files.certificate, files.key, (newer.certificate.read_bytes(), newer.key.read_bytes())
        )
        assert await shown(clinic) == present(newer).fingerprint != before
        assert (await HealthStub(older).Check(request, timeout=10)).status == Serving


async def test_files_that_do_not_fit_leave_the_orchestrators_certificate_as_it_is(clinic):
    files = clinic.issue(Role.ORCHESTRATOR, "orchestrator")
    before = present(files).fingerprint
    newer = clinic.issue(Role.ORCHESTRATOR, "newer")
    files.key.write_bytes(newer.key.read_bytes())
    assert await shown(clinic) == before
    files.certificate.write_bytes(newer.certificate.read_bytes())
    assert await shown(clinic) == present(newer).fingerprint


class Crash(Exception):
    """The machine's power is gone."""


class CrashingDisk(SystemDisk):
    """Fails at its `at`-th change of a name."""

    def __init__(self, at: int) -> None:
        self._left = at

    def rename(self, path, target) -> None:
        self._left -= 1
        if self._left < 0:
            raise Crash
        super().rename(path, target)


@pytest.mark.parametrize("at", [0, 1])
def test_a_crash_while_files_are_swapped_leaves_a_pair_that_fits(pair, monkeypatch, at):
    files, newer = pair
    older = read_pair(files.certificate, files.key)
    with monkeypatch.context() as patched:
        patched.setattr(key_files, "SYSTEM_DISK", CrashingDisk(at))
        with pytest.raises(Crash):
            replace_pair(files.certificate, files.key, newer)
    for _ in range(2):  # whoever reads first finishes what was begun
        assert pair_of(files) == (older if at == 0 else newer)


def pair_of(files: TlsFiles) -> tuple[bytes, bytes] | None:
    try:
        return read_pair(files.certificate, files.key)
    except KeyDoesNotFit:
        return None


def test_a_pair_that_does_not_fit_is_not_put_in_place(pair):
    files, (certificate, _) = pair
    older = read_pair(files.certificate, files.key)
    with pytest.raises(KeyDoesNotFit):
        replace_pair(files.certificate, files.key, (certificate, older[1]))
    assert read_pair(files.certificate, files.key) == older


def test_a_key_of_another_certificate_is_named(pair):
    files, (_, key) = pair
    files.key.write_bytes(key)
    with pytest.raises(KeyDoesNotFit, match="does not belong"):
        files.channel_credentials()


def test_a_disk_that_cannot_be_written_is_said(pair, tmp_path):
    files, newer = pair
    nowhere = TlsFiles(
        authority=files.authority, certificate=tmp_path / "no" / "cert.pem", key=files.key
    )
    with pytest.raises(KeysNotWritten, match="renewed certificate"):
        replace_pair(nowhere.certificate, nowhere.key, newer)
    assert not os.path.lexists(tmp_path / "no")
    assert read_file(files.certificate)


def test_a_members_life_is_a_setting(tmp_path):
    settings = Enrolment(certificate=tmp_path, key=tmp_path, gateway_days=2)
    assert settings.lifetime(Role.GATEWAY) == timedelta(days=2)
    assert settings.lifetime(Role.ADMIN) == timedelta(days=30)
