"""A measurement's plans are signed, and its gateways look at that, as any are."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cli.plan_keys import KEY_FILE, PUBLIC_FILE, make_signing_key, signing_key
from common.certificate_keys import identity_in
from common.plan_signature import sign
from common.wire import plan_id
from gateway.identity import gateway_identity
from gateway.trust import PlanTrust, read_plan_keys

if TYPE_CHECKING:
    from pathlib import Path

    from common.ids import RunId
    from common.signatures import PlanSignature


def make(folder: Path) -> None:
    """Make the operator's key in a measurement's folder."""
    make_signing_key(folder / "keys", "operator")


def signed(folder: Path, run: RunId, plan: bytes) -> PlanSignature:
    """Return the operator's signature under a plan."""
    who = identity_in((folder / "keys" / "operator" / "cert.pem").read_bytes())
    if who is None:
        raise LookupError(folder)
    return sign(signing_key(folder / "keys" / KEY_FILE), who.federation, run, plan_id(plan))


def trust(folder: Path, gateway: str) -> PlanTrust:
    """Return whom a gateway of the measurement obeys."""
    federation = gateway_identity(folder / "keys" / gateway / "cert.pem").federation
    return PlanTrust(federation, partial(read_plan_keys, folder / "keys" / PUBLIC_FILE))
