"""Countersignatures: the orchestrator's Ed25519 signature under the head of a gateway's ledger.

What is signed begins with a domain of its own, so that no other signature by the same key can be
taken for one of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import statements
from common.protocol import Countersignature
from common.statements import canonical, signed_by

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
    return DOMAIN + canonical(said)


def countersign(
    key: Ed25519PrivateKey, federation: str, gateway: GatewayId, head: LedgerHead
) -> Countersignature:
    """Return the word of `key`'s owner that it has seen `head` of the gateway's ledger."""
    public_key, signature = signed_by(key, statement(federation, gateway, head))
    return Countersignature(federation, head, public_key, signature)


def is_genuine(countersigned: Countersignature, gateway: GatewayId) -> bool:
    """Whether the key that it names has signed this head for `gateway`."""
    said = statement(countersigned.federation, gateway, countersigned.head)
    return statements.is_genuine(countersigned.public_key, countersigned.signature, said)
