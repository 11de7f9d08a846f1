"""The key that an operator signs plans with: made here, read where a run is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cli.pki import NotAName
from common.errors import RequestError
from common.ids import is_name
from common.key_files import write_new
from common.plan_signature import sign

if TYPE_CHECKING:
    from pathlib import Path

    from cli.config import OperatorConfig
    from common.ids import PlanId, RunId
    from common.signatures import PlanSignature

KEY_FILE = "plan-signing.key"
PUBLIC_FILE = "plan-signing.pub"


class SigningKeyMissing(RequestError):
    """The operator's settings name no key to sign plans with."""

    field = "signing_key"

    def __init__(self) -> None:
        super().__init__(
            "the operator's settings name no signing_key, and no gateway obeys a plan that is not "
            "signed: make a key with `fedgate plan keygen --name NAME --out FOLDER`, name its file "
            "as signing_key, and give its public part to the gateways (docs/how-to/sign-plans.md)"
        )


class SigningKeyUnusable(RequestError):
    """A file does not hold a key that plans are signed with."""

    field = "signing_key"

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} cannot sign plans ({why}): it must hold an Ed25519 private key, PEM, without "
            "a password, as `fedgate plan keygen` makes it"
        )


def make_signing_key(folder: Path, name: str) -> str:
    """Make a key in `folder`; return the line that gateways put into their trust file.

    Raises:
        NotAName: gateways could not tell whose key it is.
        AlreadyThere: a key is there, which may have signed plans.
    """
    if not is_name(name):
        raise NotAName(name)
    key = Ed25519PrivateKey.generate()
    line = f"{name} ed25519 {key.public_key().public_bytes_raw().hex()}"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new(folder, {KEY_FILE: pem, PUBLIC_FILE: f"{line}\n".encode()})
    return line


def signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a file; raise SigningKeyUnusable."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SigningKeyUnusable(path, error.strerror or str(error)) from error
    except (TypeError, ValueError) as error:
        raise SigningKeyUnusable(path, "it is no private key that can be read") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyUnusable(path, "it is a key of another kind")
    return key


def sign_plan(settings: OperatorConfig, run_id: RunId, plan_digest: PlanId) -> PlanSignature:
    """Return the operator's signature under a plan, for a run of the operator's own federation.

    Raises:
        SigningKeyMissing, SigningKeyUnusable, NobodysCertificate: there is nothing to sign with.
    """
    if settings.signing_key is None:
        raise SigningKeyMissing
    key = signing_key(settings.signing_key)
    return sign(key, settings.tls.federation(), run_id, plan_digest)
