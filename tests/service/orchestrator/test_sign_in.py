"""People who sign in with tokens of a real OpenID Connect provider, without a certificate."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import grpc
import pytest
from structlog.testing import capture_logs

from cli.config import operator_config
from cli.operator_client import OperatorClient
from cli.sign_in import SignIn
from common.channel import open_channel
from common.clock import SystemClock
from common.errors import PermissionRefused, UnavailableError
from common.ids import RunId
from common.membership import Member
from common.tls import LONGEST_TOKEN, PEOPLE, Role
from orchestrator.auth import PERMISSIONS, SERVICES_OF_PEOPLE
from orchestrator.config import OidcSettings, WebSettings
from orchestrator.provider_keys import (
    AWAIT_S,
    LAST_S,
    REFRESH_S,
    RETRY_S,
    ProviderAway,
    ProviderKeys,
)
from orchestrator.tokens import SKEW_S
from protos.federation.v1 import gateway_pb2, operator_pb2
from protos.federation.v1.gateway_pb2_grpc import GatewayServiceStub
from protos.federation.v1.operator_pb2_grpc import OperatorServiceStub
from tests.certificates import Authority
from tests.every_rpc import refused_of
from tests.fakes import plan_of
from tests.page import token_in, visitor
from tests.provider import Provider, base64url, running, unsigned

ROLES = {f"{role}s": role for role in (Role.ADMIN, Role.OPERATOR, Role.AUDITOR, Role.VIEWER)}
HOUR_S = 3600.0


@pytest.fixture(scope="module")
def lasting_provider(tmp_path_factory) -> Iterator[Provider]:
    files = Authority.make(tmp_path_factory.mktemp("provider")).issue(Role.ORCHESTRATOR, "provider")
    with running(files) as provider:
        yield provider


@dataclass
class Desk:
    """An orchestrator that people call, and the provider that they sign in with."""

    federation: object
    provider: Provider
    address: str
    folder: Path

    def claims(self, **changes: object) -> dict:
        now = int(self.federation.clock.wall().timestamp())
        claims = {
            "iss": self.provider.issuer,
            "aud": "fedgate",
            "sub": "olga",
            "iat": now,
            "exp": now + HOUR_S,
            "groups": ["staff", "operators"],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, algorithm: str = "ES256", **changes: object) -> str:
        return self.provider.token(self.claims(**changes), algorithm)

    async def person(self, token: str) -> OperatorClient:
        """Return the client of somebody whose token lies in a file."""
        file = self.folder / "token"
        file.write_text(f"{token}\n")
        sign_in = SignIn(authority=self.federation.config.tls.authority, token_file=file)
        client = OperatorClient(self.address, sign_in)
        return await self.federation.clients.enter_async_context(client)

    async def refusal(self, token: str) -> str:
        """Return why a token is refused; nobody is told who is calling by it."""
        person = await self.person(token)
        with pytest.raises(PermissionRefused) as caught:
            await person.list_runs()
        assert caught.value.__cause__.code() is grpc.StatusCode.UNAUTHENTICATED
        return str(caught.value)


def oidc(provider: Provider, **changes: object) -> OidcSettings:
    settings = {
        "issuer": provider.issuer,
        "audience": "fedgate",
        "roles": ROLES,
        "address": "127.0.0.1:0",
        "authority": provider.authority,
    }
    return OidcSettings(**settings | changes)


async def desk_with(
    federation, provider: Provider, folder: Path, **changes: object
) -> AsyncIterator[Desk]:
    settings = oidc(provider, **changes)
    federation.config = federation.config.model_copy(update={"oidc": settings})
    async with federation.serving() as federation.server:
        yield Desk(federation, provider, federation.server.peoples_address, folder)


@pytest.fixture
async def desk(federation, lasting_provider, tmp_path) -> AsyncIterator[Desk]:
    async for each in desk_with(federation, lasting_provider, tmp_path):
        yield each


@pytest.fixture
async def own_desk(federation, tmp_path) -> AsyncIterator[Desk]:
    """A desk whose provider may change its keys, or go away."""
    files = federation.authority.issue(Role.ORCHESTRATOR, "provider")
    with running(files) as provider:
        async for each in desk_with(federation, provider, tmp_path):
            yield each


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_person_signs_in_with_a_token_of_each_algorithm(desk, algorithm):
    person = await desk.person(desk.token(algorithm))
    assert await person.list_runs() == ()


async def test_a_session_of_the_page_has_every_role_of_the_token_and_ends_with_it(
    federation, lasting_provider, tmp_path
):
    web = WebSettings(address="127.0.0.1:0", session_hours=24.0)
    federation.config = federation.config.model_copy(update={"web": web})
    async for desk in desk_with(federation, lasting_provider, tmp_path):
        person = await desk.person(desk.token(groups=["operators", "auditors"]))
        link, _ = await person.create_web_link()
        async with visitor(federation.server.page_url) as olga:
            await olga.post("/sign-in", token=token_in(link))
            assert "auditor, operator <b>olga</b>" in (await olga.get("/records")).text
            assert (await olga.get("/runs/r/cancel")).status_code == 404  # of a viewer: 403
            federation.clock.advance(HOUR_S + SKEW_S + 1)
            assert (await olga.get("/")).status_code == 401


def by_hand(desk: Desk, algorithm: str, signature: bytes | None = None, **header: object) -> str:
    """Return a token that the provider did not sign."""
    parts = unsigned({"alg": algorithm, "kid": "es256-1", **header}, desk.claims())
    return f"{parts}.{'' if signature is None else base64url(signature)}"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE"])
async def test_a_token_without_a_signature_is_refused(desk, name):
    assert f"signed by '{name}'" in await desk.refusal(by_hand(desk, name))


@pytest.mark.parametrize("kid", ["rs256-1", "es256-1", "eddsa-1"])
@pytest.mark.parametrize("form", ["pem", "jwk", "value"])
async def test_a_public_key_is_no_secret_to_sign_with(desk, kid, form):
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415
    from jwt import PyJWK  # noqa: PLC0415

    (published,) = [key for key in desk.provider.published() if key["kid"] == kid]
    pem = PyJWK(published).key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secret = {
        "pem": pem,
        "jwk": json.dumps(published).encode(),
        "value": (published.get("n") or published["x"]).encode(),
    }[form]
    parts = unsigned({"alg": "HS256", "kid": kid}, desk.claims())
    signature = base64url(hmac.digest(secret, parts.encode(), "sha256"))
    assert "signed by 'HS256'" in await desk.refusal(f"{parts}.{signature}")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": "another"}, "another audience"),
        ({"aud": ["another", "third"]}, "another audience"),
        ({"aud": None}, "has no 'aud'"),
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "has no 'iss'"),
        ({"exp": None}, "has no 'exp'"),
        ({"iat": None}, "has no 'iat'"),
        ({"exp": "tomorrow"}, "'exp' that is no time"),
        ({"exp": 1e300}, "'exp' that is no time"),
        ({"exp": 10**400}, "'exp' that is no time"),
        ({"exp": float("nan")}, "'exp' that is no time"),
        ({"exp": float("inf")}, "'exp' that is no time"),
        ({"nbf": True}, "'nbf' that is no time"),
        ({"sub": None}, "no 'sub' that can be a name"),
        ({"sub": "a\nb"}, "no 'sub' that can be a name"),
        ({"sub": "x" * 64}, "no 'sub' that can be a name"),
    ],
    ids=lambda case: str(case)[:40],
)
async def test_a_token_that_says_something_else_is_refused_and_why_is_told(desk, changes, why):
    assert why in await desk.refusal(desk.token(**changes))


@pytest.mark.parametrize(
    ("claim", "good_s", "bad_s", "why"),
    [
        ("exp", 1 - SKEW_S, -SKEW_S, "has expired"),
        ("nbf", SKEW_S, SKEW_S + 1, "not yet valid"),
        ("iat", SKEW_S, SKEW_S + 1, "not yet valid"),
    ],
)
async def test_clocks_may_differ_by_a_minute_and_no_more(desk, claim, good_s, bad_s, why):
    now = desk.federation.clock.wall().timestamp()
    person = await desk.person(desk.token(**{claim: now + good_s}))
    assert await person.list_runs() == ()
    assert why in await desk.refusal(desk.token(**{claim: now + bad_s}))


async def test_a_key_that_the_provider_does_not_have_is_refused_by_name(desk):
    token = desk.provider.token(desk.claims(), kid="mallory's")
    assert 'the key "mallory\'s"' in await desk.refusal(token)
    assert "does not name its key" in await desk.refusal(
        desk.provider.token(desk.claims(), kid=None)
    )


async def test_a_key_signs_by_its_own_algorithm_alone(desk):
    token = desk.provider.token(desk.claims(), "ES256", alg="RS256")
    assert "not signed by the algorithm of the key" in await desk.refusal(token)


async def test_a_changed_token_is_refused(desk):
    header, _, signature = desk.token().split(".")
    claims = base64url(json.dumps(desk.claims(groups=["admins"])).encode())
    assert "wrong signature" in await desk.refusal(f"{header}.{claims}.{signature}")


async def test_a_token_for_another_purpose_is_refused(desk):
    token = desk.provider.token(desk.claims(), typ="logout+jwt")
    assert "another purpose" in await desk.refusal(token)


LISTED_KEY = unsigned({"alg": "ES256", "kid": []}, {}) + ".e30"
LISTED_ALGORITHM = unsigned({"alg": ["ES256"], "kid": "es256-1"}, {}) + ".e30"
GARBAGE = {
    "a word": "garbage",
    "three words": "a.b.c",
    "nothing but dots": "..",
    "empty objects": "e30.e30.e30",
    "a list": f"{base64url(b'[]')}.e30.e30",
    "a name of a key that is a list": LISTED_KEY,
    "an algorithm that is a list": LISTED_ALGORITHM,
    "depths": f"{base64url(b'[' * 3000)}.e30.e30",
}


@pytest.mark.parametrize("token", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_refused(desk, token):
    await desk.refusal(token)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", "Basic b2xnYTpv"),),
        (("authorization", "Bearer "),),
        (("authorization", "Bearer a"), ("authorization", "Bearer b")),
        (("authorization", f"Bearer {'x' * (LONGEST_TOKEN + 1)}"),),
    ],
    ids=["no token", "a password", "an empty token", "two tokens", "too long a token"],
)
async def test_without_one_token_nobody_is_let_in(desk, metadata):
    root = desk.federation.config.tls.authority.read_bytes()
    credentials = grpc.ssl_channel_credentials(root)
    async with grpc.aio.secure_channel(desk.address, credentials) as channel:
        call = channel.unary_unary("/federation.v1.OperatorService/ListRuns")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", metadata=metadata, timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_who_is_in_no_group_that_counts_is_a_person_without_a_role(desk):
    person = await desk.person(desk.token(groups=["staff"]))
    with pytest.raises(PermissionRefused, match=r"olga is in no group") as caught:
        await person.list_runs()
    assert caught.value.__cause__.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("role", sorted(PEOPLE))
async def test_every_method_answers_a_token_of_each_role_as_the_table_says(desk, role):
    token = desk.token(groups=[f"{role}s"])
    files = SignIn(authority=desk.federation.config.tls.authority, token=token)
    served = {path for path in PERMISSIONS if path.split("/")[1] in SERVICES_OF_PEOPLE}
    async with open_channel(desk.address, files) as channel:
        refused = await refused_of(channel, served)
    assert set(refused) == {path for path in served if role not in PERMISSIONS[path]}
    assert set(refused.values()) <= {"RoleRefused"}


@pytest.mark.parametrize("group", ["viewers", "auditors", "admins"])
async def test_a_group_gives_its_role_and_no_more(desk, group):
    person = await desk.person(desk.token(groups=[group]))
    assert await person.list_runs() == ()
    with pytest.raises(PermissionRefused, match=r"token may not call .*CancelRun \(operator may\)"):
        await person.cancel_run(RunId("r"))


async def test_who_has_two_roles_acts_in_the_one_that_may(desk):
    both = desk.token(groups=["viewers", "operators", "gateways"])
    with pytest.raises(Exception, match="there is no run 'r'"):
        await (await desk.person(both)).cancel_run(RunId("r"))


async def test_no_token_makes_a_gateway(desk):
    token = desk.token(groups=["gateway", "gateways", "operators"])
    files = SignIn(authority=desk.federation.config.tls.authority, token=token)
    async with open_channel(desk.address, files) as channel:
        call = GatewayServiceStub(channel).Register(gateway_pb2.RegisterRequest(), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED  # it is not even served there


@pytest.mark.parametrize("role", [Role.GATEWAY, Role.ORCHESTRATOR])
def test_settings_in_which_a_token_gives_a_machines_role_are_refused(lasting_provider, role):
    with pytest.raises(ValueError, match="a token can give no other role than"):
        oidc(lasting_provider, roles={"machines": role})


async def test_a_token_is_not_taken_where_certificates_are_asked_for(desk):
    """The door of certificates lets nobody in without one, whatever else a call brings."""
    files = SignIn(authority=desk.federation.config.tls.authority, token=desk.token())
    async with open_channel(desk.federation.address, files) as channel:
        call = channel.unary_unary("/federation.v1.OperatorService/ListRuns")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE  # the handshake fails


async def test_a_token_that_was_renewed_in_its_file_is_used_by_the_next_call(desk):
    person = await desk.person(desk.token())
    desk.federation.clock.advance(HOUR_S + SKEW_S)
    with pytest.raises(PermissionRefused, match="has expired"):
        await person.list_runs()
    (desk.folder / "token").write_text(desk.token())
    assert await person.list_runs() == ()
    (desk.folder / "token").unlink()
    with pytest.raises(UnavailableError, match="no token can be read from"):
        await person.list_runs()


async def test_a_stream_tells_nothing_more_once_its_token_has_expired(desk):
    operator = await desk.federation.start(plan_of("a"))
    person = await desk.person(desk.token())
    states = person.watch_run(RunId("r"))
    await anext(states)
    desk.federation.clock.advance(HOUR_S + SKEW_S)
    await operator.cancel_run(RunId("r"))
    with pytest.raises(PermissionRefused, match="has expired"):
        await anext(states)


async def test_a_body_that_comes_slowly_ends_once_its_token_has_expired(desk):
    root = desk.federation.config.tls.authority.read_bytes()
    async with grpc.aio.secure_channel(desk.address, grpc.ssl_channel_credentials(root)) as channel:
        metadata = (("authorization", f"Bearer {desk.token()}"),)
        call = OperatorServiceStub(channel).UploadWeights(metadata=metadata)
        await call.write(operator_pb2.UploadWeightsRequest(header={"digest": "7" * 64}))
        callers = desk.federation.server.members.callers
        async with asyncio.timeout(10):
            while not callers._open:  # noqa: ASYNC110 - nothing tells when one begins
                await asyncio.sleep(0.01)
        desk.federation.clock.advance(HOUR_S + SKEW_S)
        desk.federation.server.members.roster.refresh()
        code = await asyncio.wait_for(call.code(), 10)
    assert code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_person_who_was_revoked_is_turned_away_in_that_role_and_streams_end(desk):
    await desk.federation.start(plan_of("a"))
    states = (await desk.person(desk.token())).watch_run(RunId("r"))
    await anext(states)
    roster = desk.federation.server.members.roster
    assert roster.revoke(Member(Role.OPERATOR, "olga"), by="ada") == 1
    with pytest.raises(PermissionRefused, match="fed://acme/operator/olga was revoked"):
        await anext(states)
    assert "was revoked" in await desk.refusal(desk.token())
    viewer = await desk.person(desk.token(groups=["viewers"]))
    assert len(await viewer.list_runs()) == 1


async def test_who_may_not_make_a_call_is_on_record_by_the_tokens_name(desk):
    viewer = await desk.person(desk.token(groups=["viewers"]))
    with pytest.raises(PermissionRefused, match="may not call"):
        await viewer.cancel_run(RunId("r"))
    records = [line.record for line in desk.federation.server.orchestrator.audit.records(0)]
    assert (records[-1].actor, records[-1].facts["reason"]) == ("olga", "RoleRefused")


@pytest.mark.parametrize("subject", ["-Ab_9", "_x-", "a" * 63])
async def test_a_subject_as_providers_make_them_is_a_name(desk, subject):
    assert await (await desk.person(desk.token(sub=subject))).list_runs() == ()


async def test_new_keys_are_found_by_the_first_token_that_names_one(own_desk):
    person = await own_desk.person(own_desk.token())
    await person.list_runs()
    own_desk.provider.change_keys()
    own_desk.federation.clock.advance(RETRY_S)
    person = await own_desk.person(own_desk.token())
    assert await person.list_runs() == ()
    assert own_desk.provider.looks() == 2


async def test_tokens_that_name_no_known_key_do_not_make_us_a_nuisance(own_desk):
    for number in range(20):
        token = own_desk.provider.token(own_desk.claims(), kid=str(number))
        await own_desk.refusal(token)
    assert own_desk.provider.looks() == 1


async def test_a_key_that_was_withdrawn_is_forgotten_soon(own_desk):
    old = own_desk.token(exp=4e9)
    await (await own_desk.person(old)).list_runs()
    own_desk.provider.change_keys()
    own_desk.federation.clock.advance(REFRESH_S + 1)
    new = await own_desk.person(own_desk.token())
    await new.list_runs()
    assert "the key 'es256-1'" in await own_desk.refusal(old)


async def test_after_a_pause_a_key_that_was_withdrawn_is_refused_by_the_first_call(own_desk):
    old = own_desk.token(exp=4e9)
    await (await own_desk.person(old)).list_runs()
    own_desk.provider.change_keys()
    own_desk.federation.clock.advance(AWAIT_S + 1)
    assert "the key 'es256-1'" in await own_desk.refusal(old)


async def test_while_the_provider_is_away_keys_that_are_held_stay_good_for_a_day(own_desk):
    token = own_desk.token(exp=4e9)
    unknown = own_desk.provider.token(own_desk.claims(), kid="new")
    person = await own_desk.person(token)
    await person.list_runs()
    own_desk.provider.stop()
    own_desk.federation.clock.advance(LAST_S - 1)
    assert await (await own_desk.person(token)).list_runs() == ()
    with pytest.raises(UnavailableError, match=r"the keys of the provider .* cannot be read now"):
        await (await own_desk.person(unknown)).list_runs()
    own_desk.federation.clock.advance(2)
    with pytest.raises(UnavailableError, match=r"the keys of the provider .* cannot be read now"):
        await (await own_desk.person(token)).list_runs()


async def test_the_settings_of_a_person_name_the_token(desk, monkeypatch):
    file, token = desk.folder / "operator.toml", desk.folder / "token"
    token.write_text(desk.token())
    authority = desk.federation.config.tls.authority
    lines = f'address = "{desk.address}"\n[tls]\nauthority = "{authority}"\n'
    file.write_text(f'{lines}token_file = "{token}"\n')
    by_file = operator_config(file)
    file.write_text(lines)
    monkeypatch.setenv("FEDGATE__TLS__TOKEN", desk.token())
    for settings in (by_file, operator_config(file)):
        async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
            assert await client.list_runs() == ()


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("http://127.0.0.1/keys", "is no https address"),
        ("/keys", "is no https address"),
        ("file:///etc/passwd", "is no https address"),
        ("https://127.0.0.1:99999/keys", "Port out of range"),
        ("https://[/keys", "Invalid IPv6 URL"),
        ("{issuer}/elsewhere", "answers 302"),
        ("{issuer}/endless", "is longer than"),
        ("{issuer}/.well-known/openid-configuration", "publishes no set of keys"),
    ],
)
async def test_keys_come_over_https_from_where_the_provider_says_and_nowhere_else(
    lasting_provider, place, why
):
    keys = ProviderKeys(lasting_provider.issuer, lasting_provider.authority, SystemClock())
    lasting_provider.point(place.format(issuer=lasting_provider.issuer))
    with capture_logs() as logged, pytest.raises(ProviderAway):
        await keys.key("es256-1")
    lasting_provider.point(f"{lasting_provider.issuer}/keys")
    assert why in logged[0]["why"]


async def test_a_provider_that_hangs_holds_up_nobody_else(lasting_provider):
    keys = ProviderKeys(lasting_provider.issuer, lasting_provider.authority, SystemClock())
    lasting_provider.process.send_signal(SIGSTOP)
    waiting = asyncio.create_task(keys.key("es256-1"))
    for _ in range(10):
        await asyncio.sleep(0)  # others have their turn
    assert not waiting.done()
    lasting_provider.process.send_signal(SIGCONT)
    assert (await waiting).key_id == "es256-1"
    await keys.close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"issuer": "{issuer}/"}, "its configuration is of the issuer"),
        ({"issuer": "{issuer}/clinics"}, "answers 404"),
        ({"issuer": "https://127.0.0.1:1"}, "refused"),
        ({"authority": None}, "CERTIFICATE_VERIFY_FAILED"),
    ],
    ids=["another issuer", "nobody's address", "nobody there", "not trusted"],
)
async def test_of_a_provider_that_is_none_the_log_says_why(
    federation, lasting_provider, tmp_path, changes, why
):
    known = {"issuer": lasting_provider.issuer}
    changes = {name: value and value.format(**known) for name, value in changes.items()}
    with capture_logs() as logged:
        async for desk in desk_with(federation, lasting_provider, tmp_path, **changes):
            with pytest.raises(UnavailableError, match="log says why: try again later"):
                await (await desk.person(desk.token())).list_runs()
    assert why in next(line["why"] for line in logged if line["event"] == "provider_away")
