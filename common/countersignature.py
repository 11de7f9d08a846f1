"""Countersignatures: the orchestrator's Ed25519 signature under the head of a gateway's ledger.

What is signed begins with a domain of its own, so that no other signature by the same key can be
taken for one of these.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from common.protocol import Countersignature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from common.ids import GatewayId
    from common.protocol import LedgerHead

DOMAIN = b"fedgate ledger head 1\0"


def statement(federation: str, gateway: GatewayId, head: LedgerHead) -> bytes:
    """Return the bytes that are signed; different statements have different bytes."""
    said = {
        "federation": federation,
        "gateway": gateway,
        "hash": head.hash,
        "insecure_deterministic": head.insecure_deterministic,
        "sequence": head.sequence,
    }
    return DOMAIN + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def countersign(
    key: Ed25519PrivateKey, federation: str, gateway: GatewayId, head: LedgerHead
) -> Countersignature:
    """Return the word of `key`'s owner that it has seen `head` of the gateway's ledger."""
    signature = key.sign(statement(federation, gateway, head))
    public = key.public_key().public_bytes_raw()
    return Countersignature(federation, head, public.hex(), signature.hex())


def is_genuine(countersigned: Countersignature, gateway: GatewayId) -> bool:
    """Whether the key that it names has signed this head for `gateway`."""
    # an orchestrator, which only signs, idles without these 7 MiB until it has something to sign
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415
        Ed25519PublicKey,
    )

    said = statement(countersigned.federation, gateway, countersigned.head)
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(countersigned.public_key))
        key.verify(bytes.fromhex(countersigned.signature), said)
    except (InvalidSignature, ValueError):
        return False
    return True
