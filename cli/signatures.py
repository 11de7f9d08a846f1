"""Checks who ordered a run and what gateways accepted, without believing the orchestrator."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from common import acceptance, plan_signature
from common.acceptance import Acceptance, AcceptanceForged
from common.certificate_keys import is_issued_by
from common.ids import GatewayId, PlanId
from common.plan_signature import PlanSignatureRefused
from common.protocol import Effective
from common.wire import plan_id

if TYPE_CHECKING:
    from cli.sign_in import SignIn
    from common.ids import RunId
    from common.protocol import RunStatus
    from common.signatures import RunSignatures, SignedAcceptance

UNSIGNED = "the run is of before plans were signed, or somebody took the signature away"


@dataclass(frozen=True)
class Findings:
    """What could be proven of a run, and what could not."""

    run: str
    plan_digest: PlanId
    plan_signed_by: str | None  # Ed25519 public key; None: nobody, as far as can be proven
    accepted: dict[str, Effective] = field(default_factory=dict)  # proven, by gateway
    problems: list[str] = field(default_factory=list)


def verified(status: RunStatus, signatures: RunSignatures, tls: SignIn) -> Findings:
    """Return what the signatures prove of what the orchestrator says of a run.

    Args:
        status: what the orchestrator says: which plan, who accepted what.
        signatures: what it has to show for it.
        tls: the caller's own files: whose federation, and by which authority.

    Raises:
        CertificateFileMissing, NobodysCertificate: the caller's files do not say which federation.
    """
    federation = tls.federation()
    run_id, digest, problems = status.run_id, plan_id(signatures.plan), list[str]()
    if digest != status.plan_digest:
        problems.append(f"the plan that is shown is {digest}, the run's is {status.plan_digest}")
    signer = _signer(signatures, federation, run_id, problems)
    authorities, accepted = tls.authorities(), dict[str, Effective]()
    for gateway in status.gateways:
        if not isinstance(gateway.answer, Effective):
            continue
        name = GatewayId(gateway.gateway)
        said = Acceptance(federation, name, run_id, digest, gateway.answer)
        problem = _problem(signatures.acceptances.get(name), said, authorities)
        if problem is None:
            accepted[name] = gateway.answer
        else:
            problems.append(problem)
    return Findings(run_id, digest, signer, accepted, problems)


def _signer(
    signatures: RunSignatures, federation: str, run_id: RunId, problems: list[str]
) -> str | None:
    signed = signatures.plan_signature
    if signed is None:
        problems.append(UNSIGNED)
        return None
    try:
        plan_signature.check(signed, federation, run_id, plan_id(signatures.plan))
    except PlanSignatureRefused as error:
        problems.append(str(error))
        return None
    return signed.public_key


def _problem(signed: SignedAcceptance | None, said: Acceptance, authorities: bytes) -> str | None:
    """Return why an acceptance is not proven, or None."""
    if signed is None:
        return f"nothing shows that gateway {said.gateway!r} has accepted"
    try:
        acceptance.check(signed, said)
    except AcceptanceForged as error:
        return str(error)
    if not is_issued_by(signed.certificate.encode(), authorities):
        return f"the certificate of gateway {said.gateway!r} is not by the authority that you trust"
    return None
