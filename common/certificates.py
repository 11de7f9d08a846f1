"""What a certificate says: whose it is, from when to when, and whether its key is strong enough.

A member's certificate is signed by the federation's intermediate authority, that one by its root.
Everybody trusts the root alone, which a fingerprint names: SHA-256 of its DER bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.errors import RequestError
from common.tls import identity_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from common.tls import Identity

LEAST_RSA_BITS, MOST_RSA_BITS = 3072, 8192
RSA_EXPONENT = 65537  # a larger one would make each check of a signature slow
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
LONGEST_CHAIN = 8  # certificates that are read of a file or an answer
_KEPT = 1 << 12  # certificates of callers that are read once and not at every call

MALFORMED = (  # what reading bytes that somebody else made may raise
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)

StrongKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class CertificateRefused(RequestError):
    """A certificate is not one that a member can have."""


class CertificateUnreadable(CertificateRefused):
    """Something is not a certificate, or not a chain of them."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no certificate can be read ({why}): PEM certificates are needed")


class IdentityUnclear(CertificateRefused):
    """A certificate or a request names no member of a federation, or several."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"it names {count} members of a federation by URI, it must name one: "
            "fed://<federation>/<role>/<name> in the subject alternative name"
        )


class WeakKey(CertificateRefused):
    """A key could be broken, or is of a kind that is not used here."""

    def __init__(self, got: str) -> None:
        super().__init__(
            f"the key is {got}: make one on P-256, P-384 or P-521, of Ed25519, or of RSA with "
            f"{LEAST_RSA_BITS} to {MOST_RSA_BITS} bits and the exponent {RSA_EXPONENT}"
        )


class ChainBroken(RequestError):
    """A certificate does not lead to the root that is trusted."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the certificate does not lead to the federation's root: {why}")


@dataclass(frozen=True)
class Certificate:
    """What counts of a member's certificate."""

    identity: Identity
    fingerprint: str  # SHA-256 of its DER bytes, hexadecimal
    begins: datetime
    ends: datetime


@lru_cache(_KEPT)
def member_certificate(pem: bytes) -> Certificate:
    """Return what the first certificate in `pem` says.

    Raises:
        CertificateUnreadable: there is none.
        IdentityUnclear: it does not name exactly one member of a federation.
        WeakKey: its key is not strong enough.
    """
    return certificate_of(read_chain(pem)[0])


def certificate_of(found: x509.Certificate) -> Certificate:
    """Return what a certificate says; raise what `member_certificate` does."""
    try:
        key, extensions = found.public_key(), found.extensions
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    except MALFORMED as error:
        raise CertificateUnreadable("a field of it is not what X.509 has there") from error
    check_key(key)
    return Certificate(named_in(extensions), fingerprint(found), begins, ends)


def named_in(extensions: x509.Extensions) -> Identity:
    """Return the one member whom a certificate or request names; raise IdentityUnclear."""
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise IdentityUnclear(0) from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    found = [each for each in map(identity_of, uris) if each is not None]
    if len(found) != 1:
        raise IdentityUnclear(len(found))
    return found[0]


def check_key(key: PublicKeyTypes) -> StrongKey:
    """Return `key`; raise WeakKey unless it is one of those that are taken."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, CURVES):
            return key
        raise WeakKey(f"on the curve {key.curve.name}")
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        if LEAST_RSA_BITS <= key.key_size <= MOST_RSA_BITS and exponent == RSA_EXPONENT:
            return key
        raise WeakKey(f"of RSA with {key.key_size} bits and the exponent {exponent:.20g}")
    raise WeakKey(f"a {type(key).__name__}")


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's DER bytes, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def key_digest(key: StrongKey) -> str:
    """Return what names a public key: SHA-256 of its SubjectPublicKeyInfo, hexadecimal."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()


def read_chain(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates in `pem`, in their order; raise CertificateUnreadable."""
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except MALFORMED as error:
        raise CertificateUnreadable("not PEM certificates") from error
    if len(chain) > LONGEST_CHAIN:
        raise CertificateUnreadable(f"{len(chain)} of them, at most {LONGEST_CHAIN} are read")
    return chain


def to_pem(chain: Sequence[x509.Certificate]) -> bytes:
    """Return certificates as a file holds them."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in chain)


def check_chain(chain: Sequence[x509.Certificate], root: x509.Certificate) -> None:
    """Raise ChainBroken unless each certificate is signed by the next, the last one by `root`.

    Only authorities sign: a member's certificate that signs another leads nowhere.
    """
    for signed, signer in zip(chain, (*chain[1:], root), strict=True):
        if not _is_authority(signer):
            raise ChainBroken(f"{signer.subject.rfc4514_string()!r} is no authority")
        try:
            signed.verify_directly_issued_by(signer)
        except (*MALFORMED, InvalidSignature) as error:
            subject, issuer = signed.subject.rfc4514_string(), signer.subject.rfc4514_string()
            raise ChainBroken(f"{issuer!r} has not signed {subject!r}") from error


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    return constraints.ca
