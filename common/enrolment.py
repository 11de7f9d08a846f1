"""How somebody joins: the token that an admin hands over, and the request that answers it.

A token is one line: `fedgate1-` and base64url of what it says, with a checksum against typing
errors. Its secret is worth a certificate for the one member it names, once, until it expires.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.certificates import MALFORMED, check_key, named_in
from common.config import Address
from common.errors import RequestError
from common.ids import DIGEST_PATTERN, is_digest
from common.tls import Identity, identity_of

if TYPE_CHECKING:
    from typing import Self

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from common.certificates import StrongKey

PREFIX = "fedgate1-"
SECRET_BYTES = 16
LONGEST_TOKEN = 2048  # characters
LONGEST_REQUEST = 4096  # bytes
_CHECK_BYTES = 4


class TokenMalformed(RequestError):
    """A text is no enrolment token, or was not copied whole."""

    def __init__(self) -> None:
        super().__init__(
            f"this is no enrolment token, or part of one: copy the whole line, from {PREFIX!r} to "
            "its end, that `fedgate enroll create` printed"
        )


class RequestMalformed(RequestError):
    """A signing request cannot be read, or is not signed by the key that is in it."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the signing request is refused ({why}): make one with `fedgate-gateway enroll`"
        )


class NotAFingerprint(RequestError):
    """A root's fingerprint does not look like one."""

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text[:80]!r} is not a root's fingerprint: 64 hexadecimal digits, which `fedgate pki "
            "init` prints"
        )


class _Said(BaseModel):
    """What stands in a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    root: Annotated[str, Field(pattern=DIGEST_PATTERN)]
    address: Address
    member: str


@dataclass(frozen=True)
class Token:
    """What lets one member enrol, once."""

    secret: bytes
    root: str  # fingerprint of the federation's root: what the holder trusts before anything else
    address: str  # host:port where it enrols
    identity: Identity  # who its holder will be

    def text(self) -> str:
        """Return the line that is handed over."""
        said = _Said(
            secret=self.secret.hex(),
            root=self.root,
            address=self.address,
            member=self.identity.uri,
        )
        body = said.model_dump_json().encode()
        return PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the token in a line; raise TokenMalformed."""
        line = text.strip()
        if not line.startswith(PREFIX) or len(line) > LONGEST_TOKEN:
            raise TokenMalformed
        encoded = line.removeprefix(PREFIX)
        try:
            whole = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
            body, check = whole[:-_CHECK_BYTES], whole[-_CHECK_BYTES:]
            said = _Said.model_validate_json(body)
        except (binascii.Error, ValidationError, ValueError) as error:
            raise TokenMalformed from error
        identity = identity_of(said.member)
        if check != _check(body) or identity is None:
            raise TokenMalformed
        return cls(bytes.fromhex(said.secret), said.root, said.address, identity)


@dataclass(frozen=True)
class SigningRequest:
    """Who asks for a certificate, and for which key: the asker has shown that it holds the key."""

    identity: Identity
    key: StrongKey


def make_request(key: EllipticCurvePrivateKey, identity: Identity) -> bytes:
    """Return a signing request, PKCS #10 in DER, that names its holder by URI."""
    name = x509.UniformResourceIdentifier(identity.uri)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def read_request(der: bytes) -> SigningRequest:
    """Return what a signing request asks for.

    Raises:
        RequestMalformed: it cannot be read, or the key in it has not signed it.
        IdentityUnclear: it does not name exactly one member of a federation.
        WeakKey: its key is not strong enough.
    """
    if len(der) > LONGEST_REQUEST:
        raise RequestMalformed(f"it has {len(der)} bytes, at most {LONGEST_REQUEST} are read")
    try:
        request = x509.load_der_x509_csr(der)
        key = check_key(request.public_key())  # first: to verify by a key of any kind may take long
        is_signed, extensions = request.is_signature_valid, request.extensions
    except MALFORMED as error:
        raise RequestMalformed("it is not PKCS #10 in DER") from error
    if not is_signed:
        raise RequestMalformed("the key in it has not signed it")
    return SigningRequest(named_in(extensions), key)


def is_bare(der: bytes) -> bool:
    """Whether a signing request names one member and one key on a curve, and holds nothing else."""
    try:
        identity = read_request(der).identity
        request = x509.load_der_x509_csr(der)
    except RequestError:
        return False
    (extension, *more), subject = request.extensions, list(request.subject)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)])
    is_plain = extension.value == names and isinstance(request.public_key(), EllipticCurvePublicKey)
    return is_plain and not (more or subject) and len(list(request.attributes)) == 1


def request_to_pem(der: bytes) -> bytes:
    """Return a signing request as a file holds it."""
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM)


def request_from_pem(pem: bytes) -> bytes:
    """Return the signing request in a file, DER; raise RequestMalformed."""
    try:
        return x509.load_pem_x509_csr(pem).public_bytes(Encoding.DER)
    except MALFORMED as error:
        raise RequestMalformed("the file holds none in PEM") from error


def read_fingerprint(text: str) -> str:
    """Return a fingerprint as it is compared; colons and capitals count for nothing."""
    plain = text.strip().replace(":", "").lower()
    if not is_digest(plain):
        raise NotAFingerprint(text)
    return plain


def _check(body: bytes) -> bytes:
    return sha256(body).digest()[:_CHECK_BYTES]
