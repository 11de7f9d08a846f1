"""An audit log and a lineage as an orchestrator has them, over a journal of a test's own."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator.audit_log import AuditLog
from orchestrator.fencing import Fence
from orchestrator.journal import Journal
from orchestrator.lineage_store import LineageStore
from orchestrator.record import Record
from tests.fakes import FakeClock

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC_KEY = KEY.public_key().public_bytes_raw().hex()


def key() -> Ed25519PrivateKey:
    return KEY


def audit_log(fence: Fence) -> AuditLog:
    return AuditLog(fence, FakeClock(), "acme", key)


def record_of(journal: Journal) -> Record:
    """Return what writes on record in the journal's database."""
    return Record(audit_log(journal._fence), LineageStore(journal._fence, "acme", key))
