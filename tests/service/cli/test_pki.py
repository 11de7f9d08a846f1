"""The keys of the development authority: as files, and as gRPC takes them."""

from __future__ import annotations

import stat

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cli import pki
from common.certificates import check_chain, read_chain
from common.key_files import AlreadyThere
from common.tls import Role, TlsFiles

IDENTITY = "/tests.Echo/Identity"


class Echo(grpc.GenericRpcHandler):
    """Answers with the caller's names, as its certificate has them."""

    def service(self, handler_call_details):
        assert handler_call_details.method == IDENTITY
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: b"\n".join(context.auth_context()["x509_subject_alternative_name"])
        )


@pytest.fixture
def authority(tmp_path):
    """The folder of an authority for the federation `clinics`."""
    pki.init(tmp_path / "pki", "clinics")
    return tmp_path / "pki"


@pytest.fixture
def issue(tmp_path):
    """Credentials of an authority, for one role."""

    def make(folder, role, name="north", **options):
        out = tmp_path / f"{folder.name}-{role}-{name}"
        pki.issue(folder, role=role, name=name, out=out, **options)
        return TlsFiles(authority=out / "ca.pem", certificate=out / "cert.pem", key=out / "key.pem")

    return make


@pytest.fixture
async def address(authority, issue):
    """The address of a server that demands a certificate of that authority."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([Echo()])
    credentials = issue(authority, Role.ORCHESTRATOR).server_credentials()
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(grace=None)


async def call(address, credentials):
    """Return the names that the server read from the caller's certificate."""
    async with grpc.aio.secure_channel(address, credentials) as channel:
        names = await channel.unary_unary(IDENTITY)(b"", timeout=10)
    return names.decode().split()


@pytest.mark.parametrize("role", [Role.GATEWAY, Role.OPERATOR])
async def test_grpc_reads_the_identity_from_the_certificate(authority, issue, address, role):
    names = await call(address, issue(authority, role).channel_credentials())
    assert names == [f"fed://clinics/{role}/north"]


@pytest.mark.parametrize("host", ["localhost", "orchestrator"])
async def test_an_orchestrator_answers_to_its_local_names(authority, issue, address, host):
    credentials = issue(authority, Role.GATEWAY).channel_credentials()
    options = [("grpc.ssl_target_name_override", host)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        assert await channel.unary_unary(IDENTITY)(b"", timeout=10)


async def test_an_orchestrator_does_not_answer_to_other_names(authority, issue, address):
    credentials = issue(authority, Role.GATEWAY).channel_credentials()
    options = [("grpc.ssl_target_name_override", "elsewhere.example")]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(IDENTITY)(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_certificate_is_refused_as_a_callers(authority, issue, address):
    stolen = issue(authority, Role.ORCHESTRATOR, name="other").channel_credentials()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(address, stolen)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_of_another_authority_of_the_same_name_is_refused(
    authority, issue, address, tmp_path
):
    pki.init(tmp_path / "another", "clinics")
    foreign = issue(tmp_path / "another", Role.GATEWAY)
    mixed = foreign.model_copy(update={"authority": authority / "ca.pem"})
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(address, mixed.channel_credentials())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_private_keys_are_readable_by_their_owner_alone(authority, issue):
    files = issue(authority, Role.GATEWAY)
    for path in (authority / "root" / "ca.key", authority / "intermediate" / "key.pem", files.key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_process_is_given_its_authority_and_not_the_authoritys_key(authority, issue):
    out = issue(authority, Role.GATEWAY).key.parent
    assert sorted(path.name for path in out.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert (out / "ca.pem").read_bytes() == (authority / "ca.pem").read_bytes()


def test_an_authority_is_never_overwritten(authority):
    before = (authority / "root" / "ca.key").read_bytes()
    with pytest.raises(AlreadyThere, match=r"ca\.key exists"):
        pki.init(authority, "clinics")
    assert (authority / "root" / "ca.key").read_bytes() == before


def test_a_key_is_never_overwritten(authority, issue):
    before = issue(authority, Role.GATEWAY).key.read_bytes()
    with pytest.raises(AlreadyThere):
        issue(authority, Role.GATEWAY)
    assert issue(authority, Role.GATEWAY, name="south").key.read_bytes() != before


def test_the_roots_key_can_be_taken_away_before_anything_is_signed(authority, issue):
    for path in (authority / "root").iterdir():
        path.unlink()
    files = issue(authority, Role.GATEWAY)
    leaf, signer = read_chain(files.certificate.read_bytes())
    check_chain([leaf, signer], read_chain(files.authority.read_bytes())[0])


async def test_what_another_intermediate_signs_is_of_the_same_federation(
    authority, issue, address, tmp_path
):
    pki.renew_intermediate(authority / "root", tmp_path / "newer" / "intermediate")
    newer = issue(tmp_path / "newer", Role.GATEWAY, "south")
    names = await call(address, newer.channel_credentials())
    assert names == ["fed://clinics/gateway/south"]


def test_a_key_is_replaced_where_that_is_asked_for(authority, issue):
    files = issue(authority, Role.ORCHESTRATOR)
    before = files.key.read_bytes()
    out = files.key.parent
    pki.issue(authority, role=Role.ORCHESTRATOR, name="north", out=out, replace=True)
    assert files.key.read_bytes() != before
    assert files.channel_credentials()
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600


def test_a_folder_without_an_authority_is_named(tmp_path, issue):
    with pytest.raises(pki.NotAnAuthority, match="fedgate pki init"):
        issue(tmp_path / "nothing", Role.GATEWAY)


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
def test_a_torn_file_of_an_authority_is_named(authority, issue, name):
    (authority / "intermediate" / name).write_bytes(b"-----BEGIN")
    with pytest.raises(pki.NotAnAuthority, match="not what its name says"):
        issue(authority, Role.GATEWAY)


def test_the_key_of_another_authority_is_found_out(authority, issue, tmp_path):
    pki.init(tmp_path / "another", "clinics")
    stolen = (tmp_path / "another" / "intermediate" / "key.pem").read_bytes()
    (authority / "intermediate" / "key.pem").write_bytes(stolen)
    with pytest.raises(pki.NotAnAuthority, match="does not belong"):
        issue(authority, Role.GATEWAY)


def test_an_authority_on_another_kind_of_key_is_refused(authority, issue):
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (authority / "intermediate" / "key.pem").write_bytes(pem)
    with pytest.raises(pki.NotAnAuthority, match="elliptic curve"):
        issue(authority, Role.GATEWAY)
