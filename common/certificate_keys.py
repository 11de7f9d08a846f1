"""What can be read from a certificate, and the key that belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey as CurveKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from common.certificates import (
    MALFORMED,
    CertificateUnreadable,
    ChainBroken,
    check_chain,
    read_chain,
)
from common.errors import RequestError
from common.tls import identity_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.tls import Identity

SigningKey: TypeAlias = Ed25519PrivateKey | EllipticCurvePrivateKey


class KeyCannotSign(RequestError):
    """The key of a certificate is not one that statements are signed with."""

    field = "tls.key"

    def __init__(self) -> None:
        super().__init__(
            "tls.key is no private key on an elliptic curve, nor an Ed25519 one, in PEM without a "
            "password: what is accepted is signed with it; have a certificate with such a key "
            "issued"
        )


class NobodysCertificate(RequestError):
    """A process's own certificate does not say who it is, or of which federation."""

    field = "tls.certificate"

    def __init__(self) -> None:
        super().__init__(
            "tls.certificate names nobody of a federation (fed://<federation>/<role>/<name>), so "
            "nothing can be signed or checked in a name: have one issued that does"
        )


def signer_in(pem: bytes) -> Identity:
    """Return who one's own certificate names; raise NobodysCertificate."""
    identity = identity_in(pem)
    if identity is None:
        raise NobodysCertificate
    return identity


def identity_in(pem: bytes) -> Identity | None:
    """Return who a certificate names, or None where it is none, or names nobody of ours."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (*MALFORMED, x509.ExtensionNotFound):
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return next((who for uri in uris if (who := identity_of(uri)) is not None), None)


def key_in(pem: bytes) -> SigningKey:
    """Return the private key of a certificate; raise KeyCannotSign."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError) as error:
        raise KeyCannotSign from error
    if not isinstance(key, SigningKey):
        raise KeyCannotSign
    return key


def sign(key: SigningKey, data: bytes) -> bytes:
    """Return a signature: the same for the same key and data, so that it can hide nothing."""
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(data)
    return key.sign(data, ECDSA(hashes.SHA256(), deterministic_signing=True))


def has_signed(certificate: bytes, signature: bytes, data: bytes) -> bool:
    """Whether the key of a certificate, PEM, has signed `data`."""
    try:
        key = x509.load_pem_x509_certificate(certificate).public_key()
        match key:
            case Ed25519PublicKey():
                key.verify(signature, data)
            case CurveKey():
                key.verify(signature, data, ECDSA(hashes.SHA256()))
            case _:
                return False
    except (InvalidSignature, *MALFORMED):
        return False
    return True


def is_issued_by(chain: bytes, authorities: bytes) -> bool:
    """Whether a certificate, with those between, leads to one of `authorities`, whenever it did.

    All are PEM.
    """
    try:
        given, roots = read_chain(chain), read_chain(authorities)
    except CertificateUnreadable:
        return False
    return any(_leads_to(given, root) for root in roots)


def _leads_to(chain: Sequence[x509.Certificate], root: x509.Certificate) -> bool:
    try:
        check_chain(chain, root)
    except ChainBroken:
        return False
    return True
