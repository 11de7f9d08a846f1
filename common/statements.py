"""Signed statements: facts in one canonical text, behind a domain, under an Ed25519 key.

The domain keeps a signature over one kind of statement from being taken for another's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def canonical(facts: Mapping[str, Any]) -> bytes:
    """Return the one text of `facts`: JSON in ASCII, keys sorted, floats that read back exactly.

    Raises ValueError where they hold what is no number, or are too deep.
    """
    try:
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    return text.encode()


def parsed(text: bytes) -> Any:
    """Return what JSON says; raise ValueError where it is none, or too deep to be a statement's."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def signed_by(key: Ed25519PrivateKey, said: bytes) -> tuple[str, str]:
    """Return the public key and the signature over `said`, both in hexadecimal."""
    return key.public_key().public_bytes_raw().hex(), key.sign(said).hex()


def is_genuine(public_key: str, signature: str, said: bytes) -> bool:
    """Whether the owner of the key has signed `said`."""
    # an orchestrator, which only signs, idles without these 7 MiB until it has something to sign
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        key.verify(bytes.fromhex(signature), said)
    except (InvalidSignature, ValueError):
        return False
    return True
