"""Signatures as they travel and are kept, not checked yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PlanSignature:
    """An operator's word that a plan is meant for one run of one federation."""

    federation: str
    run_id: str
    public_key: str  # Ed25519, hexadecimal
    signature: str  # of `common.plan_signature.statement`, hexadecimal


@dataclass(frozen=True)
class SignedAcceptance:
    """What a gateway said that it trains a run with, and the certificate whose key signed it."""

    statement: str  # of `common.acceptance.Acceptance`
    signature: str  # hexadecimal; DER where the key is on an elliptic curve
    certificate: str  # PEM, as it was presented


@dataclass(frozen=True)
class RunSignatures:
    """Who ordered a run, and what gateways accepted of it."""

    plan: bytes
    plan_signature: PlanSignature | None = None  # None: of before plans were signed
    acceptances: Mapping[str, SignedAcceptance] = field(default_factory=dict)  # by gateway
