"""How members join: a key made where it is used, a token worth one certificate, once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from sqlalchemy import create_engine, text

from cli import pki
from cli.membership_client import MembershipClient
from common.audit import Action, Outcome
from common.certificates import certificate_of, fingerprint, read_chain, to_pem
from common.enrolment import RequestMalformed, Token, make_request
from common.errors import ConflictError, FederationError, PermissionRefused
from common.issuing import new_key
from common.joining import KeyFolder, RootNotShown, WrongCertificate, check_answer, enrol
from common.key_files import AlreadyThere, read_file, write_new
from common.membership import Member
from common.renewing import renew_files
from common.tls import Identity, Role
from gateway.client import GrpcClient
from orchestrator.engines import url_of
from orchestrator.enrolments import NotTheAuthority, TokenUnknown
from orchestrator.server import listening
from protos.federation.v1 import enrolment_pb2 as pb
from protos.federation.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from tests.fakes import VERSIONS
from tests.members import GATEWAY_A, Clinic, without_certificate

IDENTITY = Identity("acme", Role.GATEWAY, "a")


@pytest.fixture
def clinic(tmp_path, database_url) -> Clinic:
    """A federation that enrols, over each engine."""
    return Clinic(tmp_path, database_url)


@pytest.fixture
async def served(clinic):
    async with clinic.serving():
        yield clinic


@pytest.fixture
async def sqlite(tmp_path):
    """A federation that enrols, where the database does not matter."""
    clinic = Clinic(tmp_path)
    async with clinic.serving():
        yield clinic


async def ask(clinic: Clinic, token: Token, key=None, identity: Identity = IDENTITY) -> bytes:
    """Use a token for a key; return the chain."""
    request = make_request(key or new_key(), identity)
    files = clinic.issue(Role.ADMIN, "ada")
    credentials = without_certificate(files)
    async with grpc.aio.secure_channel(token.address, credentials) as channel:
        call = EnrolmentServiceStub(channel).Enrol
        return (await call(pb.EnrolRequest(secret=token.secret, request=request), timeout=20)).chain


async def test_whoever_enrolled_is_who_the_token_said(served):
    files = await served.enrolled("a")
    async with GrpcClient(served.address, files) as client:
        assert (await client.register(VERSIONS)).gateway == "a"


async def test_the_private_key_is_made_here_and_the_secret_is_kept_nowhere_there(clinic, tmp_path):
    async with clinic.serving():
        token = await clinic.token()
        await enrol(token, KeyFolder(tmp_path / "keys"))
    engine = create_engine(url_of(clinic.config))
    with engine.connect() as connection:
        rows = str(connection.execute(text("select * from enrolment_tokens")).all())
    engine.dispose()
    assert token.secret.hex() not in rows
    assert str(token.secret) not in rows
    assert "PRIVATE KEY" not in rows


async def test_of_fifty_uses_of_a_token_at_once_one_succeeds(served):
    token = await served.token()
    asked = (ask(served, token) for _ in range(50))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    chains = [each for each in answers if isinstance(each, bytes)]
    codes = {each.code() for each in answers if isinstance(each, grpc.aio.AioRpcError)}
    async with served.admin() as admin:
        signed = (await admin.roll()).certificates
    assert (len(chains), codes) == (1, {grpc.StatusCode.UNAUTHENTICATED})
    assert [each.fingerprint for each in signed] == [fingerprint(read_chain(chains[0])[0])]


async def test_a_lost_answer_is_given_again_to_the_holder_of_the_same_key(served):
    token, key = await served.token(), new_key()
    first, again = await ask(served, token, key), await ask(served, token, key)
    assert first == again
    with pytest.raises(grpc.aio.AioRpcError, match="used for another key"):
        await ask(served, token, new_key())


async def test_tokens_and_revocations_outlive_a_restart(clinic):
    async with clinic.serving():
        used, unused = await clinic.token(), await clinic.token(Member(Role.GATEWAY, "b"))
        await ask(clinic, used)
        files = await clinic.enrolled("c")
        async with clinic.admin() as admin:
            await admin.revoke(Member(Role.GATEWAY, "c"))
    async with clinic.serving() as server:
        here = server.members.enrolments.address
        moved = [Token(each.secret, each.root, here, each.identity) for each in (used, unused)]
        with pytest.raises(grpc.aio.AioRpcError, match="used for another key"):
            await ask(clinic, moved[0])
        assert await ask(clinic, moved[1], identity=moved[1].identity)
        async with GrpcClient(clinic.address, files) as client:
            with pytest.raises(PermissionRefused, match="was revoked"):
                await client.register(VERSIONS)


async def test_a_token_is_for_the_member_it_was_made_for(sqlite):
    token = await sqlite.token()
    for other in (Identity("acme", Role.GATEWAY, "b"), Identity("acme", Role.ADMIN, "a")):
        with pytest.raises(grpc.aio.AioRpcError, match="a name cannot be chosen"):
            await ask(sqlite, token, identity=other)


async def test_a_token_is_worth_nothing_after_its_time(sqlite):
    token = await sqlite.token(lifetime_s=60.0)
    sqlite.clock.ahead = timedelta(seconds=61)
    with pytest.raises(grpc.aio.AioRpcError, match="the token expired at"):
        await ask(sqlite, token)


async def test_a_token_is_worth_nothing_once_its_member_was_revoked(sqlite):
    token = await sqlite.token()
    async with sqlite.admin() as admin:
        await admin.revoke(GATEWAY_A)
    with pytest.raises(grpc.aio.AioRpcError, match="no such token"):
        await ask(sqlite, token)


@pytest.mark.parametrize("hours", [-1.0, 0.0, 24.1])
async def test_a_token_lasts_a_day_at_most(sqlite, hours):
    request = pb.CreateTokenRequest(lifetime_s=hours * 3600)
    request.member.role, request.member.name = pb.MEMBER_ROLE_GATEWAY, "a"
    async with sqlite.admin() as admin:
        with pytest.raises(grpc.aio.AioRpcError, match="lifetime_s") as caught:
            await admin._stub.CreateToken(request, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_orchestrators_do_not_enrol(sqlite):
    with pytest.raises(FederationError, match="names hosts"):
        await sqlite.token(Member(Role.ORCHESTRATOR, "o"))


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.GATEWAY, Role.VIEWER, Role.AUDITOR])
async def test_only_an_admin_says_who_belongs(sqlite, role):
    async with MembershipClient(sqlite.address, sqlite.issue(role, "x")) as client:
        for ask_it in (
            lambda: client.create_token(GATEWAY_A, 60.0),
            client.roll,
            lambda: client.revoke(GATEWAY_A),
            lambda: client.certify(GATEWAY_A, b""),
        ):
            with pytest.raises(PermissionRefused, match="may not call"):
                await ask_it()


async def test_a_certificate_lasts_for_days_and_names_its_holder(sqlite):
    gateway, person = await sqlite.enrolled("a"), await sqlite.enrolled("olga", Role.OPERATOR)
    for files, days in ((gateway, 7), (person, 30)):
        found = certificate_of(read_chain(read_file(files.certificate))[0])
        assert timedelta(days=days) <= found.ends - found.begins < timedelta(days=days, minutes=6)
    assert found.identity == Identity("acme", Role.OPERATOR, "olga")


async def test_a_server_that_does_not_show_the_tokens_root_is_told_nothing(sqlite, tmp_path):
    pki.init(tmp_path / "foreign", "acme")
    root = read_chain(read_file(tmp_path / "foreign" / "ca.pem"))[0]
    token = await sqlite.token()
    deceived = Token(token.secret, fingerprint(root), token.address, token.identity)
    with pytest.raises(RootNotShown, match="nothing was sent"):
        await enrol(deceived, KeyFolder(tmp_path / "keys"))
    assert await ask(sqlite, token)  # it was not used up


async def test_enrolling_again_into_the_same_folder_is_refused_before_the_token_is_used(
    sqlite, tmp_path
):
    await enrol(await sqlite.token(), KeyFolder(tmp_path / "keys"))
    token = await sqlite.token()
    with pytest.raises(AlreadyThere):
        await enrol(token, KeyFolder(tmp_path / "keys"))
    assert await ask(sqlite, token)


async def test_a_key_that_waits_for_its_certificate_is_used_again(sqlite, tmp_path):
    folder = KeyFolder(tmp_path / "keys")
    waiting = folder.key()
    await enrol(await sqlite.token(), folder)
    leaf = read_chain(read_file(tmp_path / "keys" / "cert.pem"))[0]
    assert leaf.public_key() == waiting.public_key()


async def test_a_site_without_a_network_enrols_by_files(sqlite, tmp_path):
    folder = KeyFolder(tmp_path / "keys")
    request = make_request(folder.key(), IDENTITY)
    async with sqlite.admin() as admin:
        carried = read_chain(await admin.certify(GATEWAY_A, request))
        with pytest.raises(PermissionRefused, match="it may be for fed://acme/gateway/b alone"):
            await admin.certify(Member(Role.GATEWAY, "b"), request)
    assert folder.finish(carried[:-1], carried[-1]) == IDENTITY


async def test_a_certificate_for_another_key_is_not_taken(sqlite, tmp_path):
    async with sqlite.admin() as admin:
        carried = read_chain(await admin.certify(GATEWAY_A, make_request(new_key(), IDENTITY)))
    folder = KeyFolder(tmp_path / "keys")
    folder.key()
    with pytest.raises(WrongCertificate, match="does not belong to the key"):
        folder.finish(carried[:-1], carried[-1])
    with pytest.raises(WrongCertificate, match="not fed://acme/gateway/b"):
        check_answer(carried, Identity("acme", Role.GATEWAY, "b"))


async def test_nobody_renews_for_another(sqlite):
    async with GrpcClient(sqlite.address, await sqlite.enrolled("a")) as client:
        other = Identity("acme", Role.GATEWAY, "b")
        with pytest.raises(PermissionRefused, match="it may be for fed://acme/gateway/a alone"):
            await client.renew(make_request(new_key(), other))


async def test_an_orchestrator_without_an_authority_signs_nothing(sqlite, tmp_path):
    config = sqlite.config.model_copy(update={"enrolment": None, "state": tmp_path / "other"})
    async with listening(config, clock=sqlite.clock) as server:
        async with MembershipClient(server.address, sqlite.issue(Role.ADMIN, "ada")) as admin:
            with pytest.raises(ConflictError, match=r"no table \[enrolment\]"):
                await admin.create_token(GATEWAY_A, 60.0)
        assert not config.enrolment_address_file.exists()


async def test_an_authority_of_another_root_is_refused_at_the_start(tmp_path):
    clinic = Clinic(tmp_path)
    pki.init(tmp_path / "foreign", "acme")
    below = tmp_path / "foreign" / "intermediate"
    enrolment = clinic.config.enrolment.model_copy(
        update={"certificate": below / "cert.pem", "key": below / "key.pem"}
    )
    config = clinic.config.model_copy(update={"enrolment": enrolment})
    with pytest.raises(NotTheAuthority, match="does not lead to the federation's root"):
        async with listening(config, clock=clinic.clock):
            pass


async def test_another_intermediate_signs_from_the_next_call_on_and_nobody_is_told(sqlite):
    below = sqlite.folder / "pki" / "intermediate"
    before = await sqlite.enrolled("a")
    pki.renew_intermediate(sqlite.folder / "pki" / "root", sqlite.folder / "newer")
    for path in (sqlite.folder / "newer").iterdir():
        path.replace(below / path.name)
    after = await sqlite.enrolled("a")
    signers = {fingerprint(read_chain(read_file(f.certificate))[1]) for f in (before, after)}
    assert len(signers) == 2
    for files in (before, after):
        async with GrpcClient(sqlite.address, files) as client:
            assert (await client.register(VERSIONS)).gateway == "a"


async def test_members_are_listed_with_what_they_have(sqlite):
    files = await sqlite.enrolled("a")
    await sqlite.token(Member(Role.VIEWER, "vera"))
    async with sqlite.admin() as admin:
        await admin.revoke(GATEWAY_A)
        roll = await admin.roll()
    (issued,), (token,) = roll.certificates, roll.tokens
    leaf = read_chain(read_file(files.certificate))[0]
    assert (issued.member, issued.fingerprint) == (GATEWAY_A, fingerprint(leaf))
    assert (issued.revoked, issued.ends) == (True, leaf.not_valid_after_utc)
    assert (token.member, token.created_by) == (Member(Role.VIEWER, "vera"), "ada")
    assert {each.subject for each in roll.revocations} == {"gateway/a", fingerprint(leaf)}
    assert {each.revoked_by for each in roll.revocations} == {"ada"}
    assert {each.revoked_at.utcoffset() for each in roll.revocations} == {timedelta()}


def test_a_folder_with_half_of_the_files_is_left_alone(tmp_path: Path):
    write_new(tmp_path, {"ca.pem": b"x"})
    with pytest.raises(AlreadyThere):
        write_new(tmp_path, {"cert.pem": b"y", "ca.pem": b"z"})
    assert not (tmp_path / "cert.pem").exists()
    assert to_pem([]) == b""


async def test_who_joins_and_who_is_turned_away_is_on_record_with_who_asked(sqlite):
    files = await sqlite.enrolled("a")
    async with GrpcClient(sqlite.address, files) as client:
        await renew_files(files, client.renew)
    async with sqlite.admin() as admin:
        await admin.revoke(GATEWAY_A)
    said = [line.record for line in sqlite.serving_now.orchestrator.audit.records(0)]
    gateway, ada = "fed://acme/gateway/a", "fed://acme/admin/ada"
    assert [(each.action, each.actor) for each in said[1:]] == [  # after the process's start
        (Action.CREATE_TOKEN, ada),
        (Action.ENROL, gateway),
        (Action.RENEW, gateway),
        (Action.REVOKE, ada),
    ]


async def test_of_whoever_has_no_token_nothing_is_read(sqlite):
    enrolments = sqlite.serving_now.members.enrolments
    with pytest.raises(TokenUnknown):
        enrolments.check(bytes(16), b"no request")
    token = await sqlite.token()
    with pytest.raises(RequestMalformed):
        enrolments.check(token.secret, b"no request")


async def test_what_was_refused_of_who_belongs_is_on_record(sqlite):
    token = await sqlite.token()
    await ask(sqlite, token)
    with pytest.raises(grpc.aio.AioRpcError, match="used for another key"):
        await ask(sqlite, token)
    async with sqlite.admin() as admin:
        with pytest.raises(FederationError, match="an orchestrator does not enrol"):
            await admin.create_token(Member(Role.ORCHESTRATOR, "o"), 60.0)
    said = [line.record for line in sqlite.serving_now.orchestrator.audit.records(0)]
    refused = [(r.action, r.actor, r.facts["reason"]) for r in said if r.outcome is Outcome.REFUSED]
    assert refused == [
        (Action.CALL, "nobody", "TokenUsed"),
        (Action.CREATE_TOKEN, "fed://acme/admin/ada", "RoleNotEnrolled"),
    ]
