"""What gateways have signed: checked against the certificate of the connection that it came by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import RequestError
from common.ids import GatewayId, PlanId, RunId
from common.protocol import Effective
from common.signatures import SignedAcceptance
from orchestrator.auth import identity

if TYPE_CHECKING:
    from common.protocol import Refusal
    from orchestrator.auth import Context
    from protos.federation.v1 import gateway_pb2 as pb


class AcceptanceNotSigned(RequestError):
    """A gateway accepts a plan and does not sign that."""

    field = "signature"

    def __init__(self, run_id: str) -> None:
        super().__init__(
            f"the plan of run {run_id!r} is accepted without a signature: this orchestrator "
            "records what can be proven; bring the gateway's software up to date"
        )


def signed_by_caller(
    context: Context, request: pb.AcceptPlanRequest, answer: Effective | Refusal
) -> SignedAcceptance | None:
    """Return what proves that the caller has accepted a plan; None where it refuses.

    Raises:
        AcceptanceNotSigned, AcceptanceForged: nothing does.
    """
    if not isinstance(answer, Effective):
        return None
    if not request.signature:
        raise AcceptanceNotSigned(request.run_id)
    # 7 MiB, see `signing_key`
    from common.acceptance import Acceptance, check  # noqa: PLC0415

    connection = context.auth_context()
    caller = identity(connection)
    run_id, plan_digest = RunId(request.run_id), PlanId(request.plan_digest)
    gateway = GatewayId(caller.name)
    acceptance = Acceptance(caller.federation, gateway, run_id, plan_digest, answer)
    certificate = b"".join(connection.get("x509_pem_cert", [])).decode()
    signed = SignedAcceptance(acceptance.statement, request.signature.hex(), certificate)
    check(signed, acceptance)
    return signed
