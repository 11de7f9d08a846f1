"""Certificates signed: a root, the intermediate authority below it, and members below that one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConflictError
from common.tls import Role

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from common.certificates import StrongKey
    from common.tls import Identity

ROOT_LIFETIME = timedelta(days=3650)
INTERMEDIATE_LIFETIME = timedelta(days=730)
SLACK = timedelta(minutes=5)  # by how much the clocks of two machines may differ


class AuthorityExpired(ConflictError):
    """The intermediate authority's own certificate has ended."""

    def __init__(self, ended: datetime) -> None:
        super().__init__(
            f"the intermediate authority's certificate ended at {ended:%Y-%m-%d %H:%M} UTC: make "
            "another with `fedgate pki intermediate`, where the root's key lies"
        )


@dataclass(frozen=True)
class Authority:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def certificate_pem(self) -> bytes:
        """Return the certificate as a file holds it."""
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self) -> bytes:
        """Return the key as a file holds it, not encrypted."""
        return private_pem(self.key)


@dataclass(frozen=True)
class Period:
    """From when, and for how long."""

    now: datetime
    lifetime: timedelta

    @property
    def begin(self) -> datetime:
        """A little before: another machine's clock may be behind."""
        return self.now - SLACK

    def end(self, at_most: datetime) -> datetime:
        """Its end, or what it may be at most; raise AuthorityExpired where that has passed."""
        if at_most <= self.now:
            raise AuthorityExpired(at_most)
        return min(self.now + self.lifetime, at_most)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as a file holds it, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def make_root(federation: str, now: datetime) -> Authority:
    """Return a new root for `federation`, signed by itself."""
    key, subject = new_key(), _subject(federation, f"{federation} root")
    ends = Period(now, ROOT_LIFETIME).end(now + ROOT_LIFETIME)
    builder = _builder(subject, subject, key.public_key(), (now - SLACK, ends))
    signed = _authority(builder, path_length=1).sign(key, hashes.SHA256())
    return Authority(signed, key)


def make_intermediate(root: Authority, now: datetime) -> Authority:
    """Return a new authority below `root`, which signs members and no further authority."""
    key, federation = new_key(), federation_of(root.certificate)
    period = Period(now, INTERMEDIATE_LIFETIME)
    times = (period.begin, period.end(root.certificate.not_valid_after_utc))
    # a name of its own: two of one name could be mistaken for each other while chains are built
    subject = _subject(federation, f"{federation} intermediate {now:%Y-%m-%d %H:%M:%S}")
    builder = _builder(subject, root.certificate.subject, key.public_key(), times)
    builder = builder.add_extension(_signer(root), critical=False)
    return Authority(_authority(builder, path_length=0).sign(root.key, hashes.SHA256()), key)


def certify(
    authority: Authority,
    key: StrongKey,
    identity: Identity,
    period: Period,
    hosts: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    """Return a member's certificate; `hosts` are what an orchestrator is dialled by.

    Raises:
        AuthorityExpired: the authority can sign nothing more; a certificate ends with it.
    """
    serves = identity.role is Role.ORCHESTRATOR
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
    names = [x509.UniformResourceIdentifier(identity.uri), *hosts]
    subject = _subject(identity.federation, f"{identity.role} {identity.name}")
    times = (period.begin, period.end(authority.certificate.not_valid_after_utc))
    builder = (
        _builder(subject, authority.certificate.subject, key, times)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=True, certify=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_signer(authority), critical=False)
    )
    return builder.sign(authority.key, hashes.SHA256())


def federation_of(certificate: x509.Certificate) -> str:
    """Return the federation that an authority's certificate names; empty if none."""
    attributes = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(attributes[0].value) if attributes else ""


def _builder(
    subject: x509.Name, issuer: x509.Name, key: StrongKey, times: tuple[datetime, datetime]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(times[0])
        .not_valid_after(times[1])
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, *, path_length: int) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    usage = _usage(sign=False, certify=True)
    return builder.add_extension(constraints, critical=True).add_extension(usage, critical=True)


def _signer(authority: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())


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
