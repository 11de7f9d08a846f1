"""Signed acceptances: what a gateway trains a run with, under the key of its own certificate.

The text that is signed is kept as it is, so that it can be checked by whoever reads it later, with
any version of this software and with no other database.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from common.certificate_keys import has_signed, identity_in, key_in, sign, signer_in
from common.errors import RequestError
from common.ids import GatewayId
from common.statements import canonical
from common.tls import Identity, Role

if TYPE_CHECKING:
    from common.ids import PlanId, RunId
    from common.protocol import Effective
    from common.signatures import SignedAcceptance
    from common.tls import TlsFiles

DOMAIN = b"fedgate acceptance 1\0"


@dataclass(frozen=True)
class Acceptance:
    """A gateway's word which values it trains a run with."""

    federation: str
    gateway: GatewayId
    run_id: RunId
    plan_digest: PlanId
    effective: Effective

    @property
    def statement(self) -> str:
        """The text that is signed; different acceptances have different texts."""
        said = {
            "effective": json.loads(self.effective.hyperparameters.to_json()),
            "federation": self.federation,
            "gateway": self.gateway,
            "insecure_deterministic": self.effective.insecure_deterministic,
            "plan": self.plan_digest,
            "run": self.run_id,
        }
        return canonical(said).decode()

    @property
    def signed(self) -> bytes:
        """The bytes that the signature is under."""
        return DOMAIN + self.statement.encode()


@dataclass(frozen=True)
class Signer:
    """A certificate and its key, as they were when a channel was made with them."""

    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, tls: TlsFiles) -> Self:
        """Return what is in the files now."""
        return cls(tls.certificate.read_bytes(), tls.key.read_bytes())

    def accept(self, run_id: RunId, plan_digest: PlanId, effective: Effective) -> bytes:
        """Return a signature under the acceptance of a plan; raise NobodysCertificate."""
        who = signer_in(self.certificate)
        said = Acceptance(who.federation, GatewayId(who.name), run_id, plan_digest, effective)
        return sign(key_in(self.key), said.signed)


class AcceptanceForged(RequestError):
    """An acceptance is not signed by the key of the gateway that it is said to be of."""

    field = "signature"

    def __init__(self, gateway: str, run_id: str, problem: str) -> None:
        super().__init__(
            f"gateway {gateway!r} is said to have accepted the plan of run {run_id!r}, but "
            f"{problem}: that is not its word; a gateway signs the very values that it sends"
        )


def check(signed: SignedAcceptance, acceptance: Acceptance) -> None:
    """Raise AcceptanceForged unless `signed` is this gateway's signature under this acceptance.

    That the certificate is by the federation's authority is for whoever asks: a connection with
    TLS has shown it.
    """
    gateway, run_id = acceptance.gateway, acceptance.run_id
    certificate = signed.certificate.encode()
    if signed.statement != acceptance.statement:
        raise AcceptanceForged(gateway, run_id, "what was signed are other values")
    if identity_in(certificate) != Identity(acceptance.federation, Role.GATEWAY, gateway):
        raise AcceptanceForged(gateway, run_id, "the certificate names somebody else")
    try:
        signature = bytes.fromhex(signed.signature)
    except ValueError as error:
        raise AcceptanceForged(gateway, run_id, "its signature is none") from error
    if not has_signed(certificate, signature, acceptance.signed):
        raise AcceptanceForged(
            gateway, run_id, "the key of its certificate has not signed what it sends"
        )
