"""Signed plans: an operator's Ed25519 signature under a plan, for one run of one federation.

What is signed begins with a domain of its own and names federation, run and the plan's digest, so
that nothing else by the same key can be taken for it, nor one plan's signature for another's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from common.errors import RequestError
from common.protocol import RefusalReason
from common.signatures import PlanSignature
from common.statements import canonical, is_genuine, signed_by

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from common.ids import PlanId, RunId

DOMAIN = b"fedgate plan 1\0"
_PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


class PlanSignatureRefused(RequestError):
    """A plan is not signed as it must be."""

    field = "signature"
    reason = RefusalReason.PLAN_SIGNATURE


class SignatureMalformed(PlanSignatureRefused):
    """What stands for a key or a signature can be none."""

    def __init__(self, what: str, got: str, digits: int) -> None:
        super().__init__(
            f"the plan's {what} is {got[:20]!r} of {len(got)} characters, an Ed25519 {what} has "
            f"{digits} lower-case hexadecimal digits: sign the plan with `fedgate run start`"
        )


class SignatureForged(PlanSignatureRefused):
    """The key did not sign this."""

    def __init__(self, plan_digest: PlanId, public_key: str) -> None:
        super().__init__(
            f"key {public_key[:16]} has not signed plan {plan_digest[:12]} for the run and the "
            "federation that are named: the plan or its signature was changed on the way"
        )


class SignedForAnother(PlanSignatureRefused):
    """The plan was signed for another run, or for another federation."""

    def __init__(self, what: str, *, signed: str, here: str) -> None:
        super().__init__(
            f"the plan was signed for {what} {signed[:63]!r}, and is offered as {here!r}: a "
            "signature holds for one run of one federation; its operator must sign it for this one"
        )


def statement(federation: str, run_id: str, plan_digest: PlanId) -> bytes:
    """Return the bytes that are signed; different statements have different bytes."""
    said = {"federation": federation, "plan": plan_digest, "run": run_id}
    return DOMAIN + canonical(said)


def sign(
    key: Ed25519PrivateKey, federation: str, run_id: RunId, plan_digest: PlanId
) -> PlanSignature:
    """Return the word of `key`'s owner that this plan is meant for this run."""
    return PlanSignature(
        federation, run_id, *signed_by(key, statement(federation, run_id, plan_digest))
    )


def check(signature: PlanSignature, federation: str, run_id: RunId, plan_digest: PlanId) -> None:
    """Raise unless the key that is named has signed this plan for this run of this federation.

    Whether that key may order anything is for whoever asks.

    Raises:
        SignatureMalformed, SignatureForged, SignedForAnother: what is wrong with it.
    """
    if not _PUBLIC_KEY.fullmatch(signature.public_key):
        raise SignatureMalformed("public key", signature.public_key, 64)
    if not _SIGNATURE.fullmatch(signature.signature):
        raise SignatureMalformed("signature", signature.signature, 128)
    said = statement(signature.federation, signature.run_id, plan_digest)
    if not is_genuine(signature.public_key, signature.signature, said):
        raise SignatureForged(plan_digest, signature.public_key)
    if signature.federation != federation:
        raise SignedForAnother("federation", signed=signature.federation, here=federation)
    if signature.run_id != run_id:
        raise SignedForAnother("run", signed=signature.run_id, here=run_id)
