"""The key that an operator signs plans with: how it is made, and what cannot stand for it."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from typer.testing import CliRunner

from cli import pki
from cli.config import OperatorConfig
from cli.main import app
from cli.pki import NotAName
from cli.plan_keys import (
    SigningKeyMissing,
    SigningKeyUnusable,
    make_signing_key,
    sign_plan,
    signing_key,
)
from cli.sign_in import SignIn
from common.certificate_keys import NobodysCertificate
from common.ids import RunId
from common.key_files import AlreadyThere
from common.plan_signature import check
from common.tls import Role
from common.wire import plan_id
from tests.certificates import Authority

RUN, DIGEST = RunId("first"), plan_id(b"a plan")


def test_keygen_prints_the_line_for_gateways_and_keeps_the_key_to_its_owner(tmp_path):
    folder = tmp_path / "alice"
    command = ["plan", "keygen", "--name", "alice", "--out", str(folder)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.exception
    assert done.stdout == (folder / "plan-signing.pub").read_text()
    key = folder / "plan-signing.key"
    public = signing_key(key).public_key().public_bytes_raw().hex()
    assert done.stdout == f"alice ed25519 {public}\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("there", ["plan-signing.key", "plan-signing.pub"])
def test_a_key_that_is_there_stays(tmp_path, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(AlreadyThere):
        make_signing_key(tmp_path, "alice")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_a_key_has_a_name_that_a_trust_file_can_hold(tmp_path):
    with pytest.raises(NotAName):
        make_signing_key(tmp_path, "alice ed25519")


@pytest.fixture
def settings(tmp_path):
    """Return an operator of the federation acme, with a key."""
    make_signing_key(tmp_path, "alice")
    return OperatorConfig(
        address="localhost:1",
        tls=Authority.make(tmp_path / "keys").issue(Role.OPERATOR, "alice").model_dump(),
        signing_key=tmp_path / "plan-signing.key",
    )


def test_a_plan_is_signed_for_the_federation_of_the_operators_certificate(settings):
    signature = sign_plan(settings, RUN, DIGEST)
    check(signature, "acme", RUN, DIGEST)


def test_without_a_key_the_way_to_one_is_said(settings):
    without = settings.model_copy(update={"signing_key": None})
    with pytest.raises(SigningKeyMissing, match="fedgate plan keygen"):
        sign_plan(without, RUN, DIGEST)


def test_a_certificate_that_names_nobody_is_of_no_federation(settings, tmp_path):
    nobody = Authority.make(tmp_path / "others").issue_uri("https://example.org")
    with pytest.raises(NobodysCertificate, match="names nobody"):
        sign_plan(settings.model_copy(update={"tls": SignIn(**nobody.model_dump())}), RUN, DIGEST)


def test_whoever_signs_in_with_a_token_signs_for_the_authoritys_federation(settings, tmp_path):
    (tmp_path / "token").write_text("a.b.c")
    pki.init(tmp_path / "pki", "acme")
    by_token = SignIn(authority=tmp_path / "pki" / "ca.pem", token_file=tmp_path / "token")
    check(
        sign_plan(settings.model_copy(update={"tls": by_token}), RUN, DIGEST), "acme", RUN, DIGEST
    )


CURVE = ec.derive_private_key(7, ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
PKCS8 = (Encoding.PEM, PrivateFormat.PKCS8)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no private key that can be read"),
        (EDWARDS.private_bytes(*PKCS8, NoEncryption())[:-40], "no private key that can be read"),
        (EDWARDS.private_bytes(*PKCS8, BestAvailableEncryption(b"x")), "no private key that can"),
        (CURVE.private_bytes(*PKCS8, NoEncryption()), "a key of another kind"),
    ],
    ids=["empty", "cut", "with a password", "of a curve"],
)
def test_what_is_no_such_key_is_named_with_its_file(tmp_path, content, why):
    path = tmp_path / "some.key"
    path.write_bytes(content)
    with pytest.raises(SigningKeyUnusable, match=rf"some\.key.*{why}"):
        signing_key(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SigningKeyUnusable, match="No such file"):
        signing_key(tmp_path / "some.key")
