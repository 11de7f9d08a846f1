"""Joining a federation with a token: the root is found by its fingerprint, the key stays here.

Nothing can be verified before there is a root to trust, and the token names the root's fingerprint
alone. So the server is first asked to show its certificates, unverified; the one among them that
has the fingerprint is the root, whoever has shown it. Only then is the server verified by it, on
another connection, and told the token's secret.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from common.certificates import certificate_of, check_chain, fingerprint, read_chain, to_pem
from common.channel import CALL_TIMEOUT_S, error_of
from common.enrolment import make_request
from common.errors import RequestError, UnavailableError
from common.http2 import CONNECT_TIMEOUT_S, DEFAULT_HTTP2
from common.issuing import new_key, private_pem
from common.key_files import AlreadyThere, read_file, write_new
from protos.federation.v1 import enrolment_pb2 as pb
from protos.federation.v1.enrolment_pb2_grpc import EnrolmentServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from common.enrolment import Token
    from common.tls import Identity

    Wrap = Callable[[grpc.aio.Channel], Any]  # what a call goes through

CERTIFICATE, KEY, AUTHORITY = "cert.pem", "key.pem", "ca.pem"
_DER = 2  # as OpenSSL's module of Python 3.11 and 3.12 counts the forms of a certificate


class RootNotShown(RequestError):
    """A server does not belong to the federation that a token is for."""

    def __init__(self, where: str, root: str) -> None:
        super().__init__(
            f"{where} shows no root with the fingerprint {root}: it is another federation, or "
            "somebody stands in between; nothing was sent to it. Ask an admin for the fingerprint"
        )


class EnrolmentUnreachable(UnavailableError):
    """There is no TLS 1.3 server where a token says."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"cannot reach {address} to enrol ({why}): is the address right and open?")


class NotAKey(RequestError):
    """The file of a key that waits for its certificate holds none."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} holds no private key on a curve: delete it, and a new one is made"
        )


class WrongCertificate(RequestError):
    """What came back is not the certificate that was asked for."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the certificate that came back is not taken: {why}")


@dataclass(frozen=True)
class KeyFolder:
    """Where a member's key is made, and its certificate is put once it is there."""

    folder: Path

    def key(self) -> ec.EllipticCurvePrivateKey:
        """Return a new key, on the disk; or the one that still waits for its certificate.

        Raises:
            AlreadyThere: there is a certificate.
            NotAKey: the file of the key holds something else.
        """
        if (self.folder / CERTIFICATE).exists():
            raise AlreadyThere(self.folder / CERTIFICATE)
        if not (self.folder / KEY).exists():
            write_new(self.folder, {KEY: private_pem(new_key())})
        return self._kept_key()

    def finish(self, chain: Sequence[x509.Certificate], root: x509.Certificate) -> Identity:
        """Put a certificate beside its key, and the root; return whom it names.

        Raises:
            ChainBroken: it does not lead to `root`.
            WrongCertificate: it is for another key.
            AlreadyThere: there is one.
        """
        check_chain(chain, root)
        if chain[0].public_key() != self._kept_key().public_key():
            raise WrongCertificate(f"it does not belong to the key in {self.folder / KEY}")
        write_new(self.folder, {AUTHORITY: to_pem([root]), CERTIFICATE: to_pem(chain)})
        return certificate_of(chain[0]).identity

    def _kept_key(self) -> ec.EllipticCurvePrivateKey:
        path = self.folder / KEY
        try:
            found = load_pem_private_key(read_file(path), password=None)
        except (TypeError, ValueError) as error:
            raise NotAKey(path) from error
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise NotAKey(path)
        return found


async def enrol(token: Token, folder: KeyFolder, wrap: Wrap = lambda channel: channel) -> Identity:
    """Make a key in `folder` and get a certificate for it by `token`; return whom it names.

    After an answer that was lost the same call gets the same certificate, until the token expires.

    Raises:
        AlreadyThere: the folder holds a certificate; nothing was sent.
        EnrolmentUnreachable, RootNotShown: this is not the orchestrator; nothing was sent.
        PermissionRefused, RequestError, UnavailableError: the orchestrator refuses, or failed.
        ChainBroken, WrongCertificate: what it answered is of no use.
    """
    key = folder.key()
    root = await asyncio.to_thread(shown_root, token.address, token.root)
    credentials = grpc.ssl_channel_credentials(root_certificates=to_pem([root]))
    options = DEFAULT_HTTP2.client_options()
    request = pb.EnrolRequest(secret=token.secret, request=make_request(key, token.identity))
    async with grpc.aio.secure_channel(token.address, credentials, options) as channel:
        stub = EnrolmentServiceStub(cast("grpc.aio.Channel", wrap(channel)))
        try:
            answer = await stub.Enrol(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise error_of(error, token.address) from error
    chain = read_chain(answer.chain)
    check_answer(chain, token.identity)
    return folder.finish(chain, root)


def check_answer(chain: Sequence[x509.Certificate], identity: Identity) -> None:
    """Raise WrongCertificate unless it names `identity`."""
    found = certificate_of(chain[0]).identity
    if found != identity:
        raise WrongCertificate(f"it names {found.uri}, not {identity.uri}")


def shown_root(address: str, root: str) -> x509.Certificate:
    """Return the certificate with the fingerprint `root` among those that a server shows.

    Raises:
        EnrolmentUnreachable: there is no TLS 1.3 server.
        RootNotShown: it shows others.
    """
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # nothing is believed of this server, and nothing told
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")) as connection,
        ):
            shown = [x509.load_der_x509_certificate(der) for der in _chain(connection)]
    except (OSError, ValueError) as error:
        raise EnrolmentUnreachable(address, str(error)) from error
    return root_among(shown, root, address)


def root_among(shown: Sequence[x509.Certificate], root: str, where: str) -> x509.Certificate:
    """Return the certificate with the fingerprint `root`; raise RootNotShown."""
    for certificate in shown:
        if fingerprint(certificate) == root:
            return certificate
    raise RootNotShown(where, root)


def _chain(connection: ssl.SSLSocket) -> list[bytes]:
    """Return the certificates that a server has shown, DER."""
    public = getattr(connection, "get_unverified_chain", None)
    if public is not None:  # from Python 3.13 on
        return list(public())
    found: Any = connection._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # noqa: SLF001 - of 3.11 and 3.12
    return [each.public_bytes(_DER) for each in found]
