"""Keys and certificates for development: an authority in a folder, and what it signs.

    <folder>/ca.pem  ca.key              the authority
    <out>/ca.pem     cert.pem  key.pem   what one process is given

Whoever reads `ca.key` can be anyone in the federation.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.clock import SystemClock
from common.errors import RequestError
from common.ids import is_name
from common.tls import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1", "orchestrator")
AUTHORITY_DAYS = 730
CERTIFICATE_DAYS = 90
SLACK = timedelta(minutes=5)  # by how much the clocks of two machines may differ


class NotAName(RequestError):
    """A federation or the holder of a certificate cannot be called this."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} cannot be a name: use up to 63 lower-case letters, digits, '-' and '.', "
            "a letter or digit first and last"
        )


class AlreadyThere(RequestError):
    """Making keys would overwrite a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists and is left as it is: name another folder, or delete it")


class NotAnAuthority(RequestError):
    """A folder does not hold the certificate and key of an authority."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(
            f"no authority can be read from {folder} ({why}): make one with `fedgate pki init`"
        )


class HostsNotAllowed(RequestError):
    """Hosts are given for a role that nobody dials."""

    field = "hosts"

    def __init__(self, role: Role) -> None:
        super().__init__(f"a certificate for the role {role} names no hosts: leave them out")


class NotAHost(RequestError):
    """A host is neither a DNS name nor an IP address."""

    field = "hosts"

    def __init__(self, host: str) -> None:
        super().__init__(f"{host!r} is neither a DNS name in ASCII nor an IP address")


@dataclass(frozen=True)
class Pair:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """Return the certificate as a file holds it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """Return the key as a file holds it, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def init(folder: Path, federation: str) -> None:
    """Make an authority for `federation` in `folder`.

    Raises:
        NotAName: `federation` cannot stand in a certificate's name.
        AlreadyThere: `folder` already holds an authority.
    """
    authority = make_authority(federation, SystemClock().wall())
    _write(folder, {"ca.key": authority.key_pem(), "ca.pem": authority.certificate_pem()})


def issue(
    folder: Path,
    *,
    role: Role,
    name: str,
    out: Path,
    hosts: Sequence[str] | None = None,
    days: int = CERTIFICATE_DAYS,
) -> Identity:
    """Make a key and a certificate for it in `out`, signed by the authority in `folder`.

    Args:
        folder: where `init` made the authority.
        role: what the holder may be.
        name: the holder's name.
        out: a folder that holds none of ca.pem, cert.pem and key.pem.
        hosts: DNS names and addresses that an orchestrator is dialled by; None: `LOCAL_HOSTS`.
        days: how long the certificate is valid.

    Returns:
        The identity that the certificate carries.

    Raises:
        NotAName: `name` cannot stand in a certificate's name.
        NotAnAuthority: `folder` holds no authority.
        HostsNotAllowed: hosts are given, and the role is not the orchestrator's.
        NotAHost: a host is neither a DNS name nor an address.
        AlreadyThere: a file in `out` would be overwritten.
    """
    authority = read_authority(folder)
    identity = Identity(federation_of(authority.certificate), role, _name(name))
    now = SystemClock().wall()
    pair = make_certificate(authority, identity, hosts, now=now, days=days)
    files = {
        "ca.pem": authority.certificate_pem(),
        "key.pem": pair.key_pem(),
        "cert.pem": pair.certificate_pem(),
    }
    _write(out, files)
    return identity


def make_authority(federation: str, now: datetime) -> Pair:
    """Return a new authority: it signs certificates, and no further authorities."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject(_name(federation), "development authority")
    usage = _usage(sign=False, certify=True)
    builder = (
        _builder(name, name, key.public_key(), now=now, days=AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return Pair(builder.sign(key, hashes.SHA256()), key)


def make_certificate(
    authority: Pair, identity: Identity, hosts: Sequence[str] | None, *, now: datetime, days: int
) -> Pair:
    """Return a new key, and a certificate that names its holder by `identity.uri`."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.UniformResourceIdentifier(identity.uri), *_hosts(identity.role, hosts)]
    serves = identity.role is Role.ORCHESTRATOR
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
    issuer = authority.certificate
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    subject = _subject(identity.federation, f"{identity.role} {identity.name}")
    builder = (
        _builder(subject, issuer.subject, key.public_key(), now=now, days=days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=True, certify=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(signer, critical=False)
    )
    return Pair(builder.sign(authority.key, hashes.SHA256()), key)


def federation_of(certificate: x509.Certificate) -> str:
    """Return the federation that an authority's certificate names."""
    (attribute,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(attribute.value)


def read_authority(folder: Path) -> Pair:
    """Return the authority in `folder`; raise NotAnAuthority if there is none."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except OSError as error:
        raise NotAnAuthority(folder, f"{error.filename}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise NotAnAuthority(folder, "ca.pem or ca.key is not what its name says") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NotAnAuthority(folder, "ca.key is not a key on an elliptic curve")
    if key.public_key() != certificate.public_key():
        raise NotAnAuthority(folder, "ca.key does not belong to ca.pem")
    return Pair(certificate, key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(federation: str, common_name: str) -> x509.Name:
    """Return a name for people to read; an identity is never taken from it."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64]),  # X.520's limit
        ]
    )


def _usage(*, sign: bool, certify: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certify,
        crl_sign=certify,
        encipher_only=False,
        decipher_only=False,
    )


def _hosts(role: Role, hosts: Sequence[str] | None) -> list[x509.GeneralName]:
    if role is Role.ORCHESTRATOR:
        return [_host(host) for host in hosts or LOCAL_HOSTS]
    if hosts:
        raise HostsNotAllowed(role)
    return []


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    labels = text.removeprefix("*.").removesuffix(".").split(".")
    if not all(each.replace("-", "").isalnum() and each.isascii() for each in labels):
        raise NotAHost(text)
    return x509.DNSName(text)


def _name(text: str) -> str:
    if not is_name(text):
        raise NotAName(text)
    return text


def _write(folder: Path, files: dict[str, bytes]) -> None:
    """Write new files, the private keys for their owner's eyes only."""
    for name in files:
        if (folder / name).exists():
            raise AlreadyThere(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        mode = 0o600 if name.endswith(("key", "key.pem")) else 0o644
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
