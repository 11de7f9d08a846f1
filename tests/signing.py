"""An operator's key for plans, and gateways that obey it alone."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.ids import RunId
from common.plan import Plan
from common.plan_signature import sign
from common.signatures import PlanSignature
from common.wire import plan_id, plan_to_bytes
from gateway.trust import PlanTrust, TrustSettings

FEDERATION = "acme"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = KEY.public_key().public_bytes_raw().hex()
TRUST = PlanTrust(FEDERATION, lambda: {PUBLIC_KEY: "olga"})
NOT_READ = TrustSettings(plan_keys=Path("unused"))  # where a test hands `TRUST` to the agent


def signed(
    run: str, plan: bytes, federation: str = FEDERATION, key: Ed25519PrivateKey = KEY
) -> PlanSignature:
    """Return an operator's signature under a plan's bytes, for one run of a federation."""
    return sign(key, federation, RunId(run), plan_id(plan))


def order(
    run: str, plan: bytes | Plan, federation: str = FEDERATION
) -> tuple[RunId, bytes, PlanSignature]:
    """Return what a run is started with."""
    data = plan_to_bytes(plan) if isinstance(plan, Plan) else plan
    return RunId(run), data, signed(run, data, federation)


def trust_file(folder: Path) -> Path:
    """Return a trust file in `folder` that names the key of this module."""
    path = folder / "plan-keys"
    path.write_text(f"olga ed25519 {PUBLIC_KEY}\n")
    return path
