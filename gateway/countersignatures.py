"""What the orchestrator has countersigned of this ledger: kept, and never forgotten for less."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from common.countersignature import is_genuine
from common.errors import ConflictError
from common.ids import GatewayId
from common.protocol import Countersignature, LedgerHead, RefusalReason
from gateway import ledger_chain
from gateway.ledger_tables import ORCHESTRATOR
from gateway.records import Head


class OrchestratorKeyChanged(ConflictError):
    """The orchestrator signs with another key than the one that this ledger knows."""

    reason = RefusalReason.EQUIVOCATION

    def __init__(self, *, known: str, got: str) -> None:
        super().__init__(
            f"the orchestrator signs with key {got}, this ledger knows it by {known}: nothing is "
            "trained for it; ask its operator, over another channel, whether the key was replaced, "
            "and only then `fedgate-gateway ledger trust` with the new one"
        )


class CountersignatureForged(ConflictError):
    """A countersignature is not what it says that it is."""

    reason = RefusalReason.EQUIVOCATION

    def __init__(self, head: LedgerHead) -> None:
        super().__init__(
            f"the orchestrator's signature under record {head.sequence} of this gateway's ledger "
            "is not one: nothing is trained for it; ask its operator"
        )


class LedgerRolledBack(ConflictError):
    """The ledger lacks records that the orchestrator has countersigned."""

    reason = RefusalReason.LEDGER_ROLLED_BACK

    def __init__(self, *, confirmed: Head, local: Head) -> None:
        super().__init__(
            f"the orchestrator has countersigned record {confirmed.sequence} "
            f"({confirmed.hash[:12]}) of this gateway's ledger, which ends at record "
            f"{local.sequence} ({local.hash[:12]}) and does not hold it: it is an old copy or "
            "another branch, what it lacks was spent, and nothing is trained until "
            "`fedgate-gateway ledger merge` has taken it in"
        )


def keep(connection: Connection, gateway: GatewayId, given: Countersignature) -> None:
    """Keep a countersignature if it is the newest; the first one's key is known from then on.

    Raises:
        CountersignatureForged: its key did not sign it for this gateway.
        OrchestratorKeyChanged: it is by another key than the first one.
    """
    if not is_genuine(given, gateway):
        raise CountersignatureForged(given.head)
    row = {
        "federation": given.federation,
        "public_key": given.public_key,
        "sequence": given.head.sequence,
        "hash": given.head.hash,
        "signature": given.signature,
    }
    known = _row(connection)
    if known is None:
        connection.execute(insert(ORCHESTRATOR).values(id=1, **row))
        return
    if known.public_key != given.public_key or known.federation not in {given.federation, ""}:
        raise OrchestratorKeyChanged(
            known=f"{known.public_key} of {known.federation!r}",
            got=f"{given.public_key} of {given.federation!r}",
        )
    if _says_more(connection, known, given):
        connection.execute(update(ORCHESTRATOR).values(row))


def _says_more(connection: Connection, known: Row[Any], given: Countersignature) -> bool:
    """Whether a countersignature is to take the place of the known one.

    A higher head is; so is another branch's, once all that is known is held. What is known and not
    held is never replaced by a lower head: the orchestrator cannot talk it away.
    """
    before, now = Head(known.sequence, known.hash), place_of(given)
    if now == before:
        return not known.signature
    if now.sequence > before.sequence:
        return True
    return ledger_chain.has(connection, before) and not ledger_chain.has(connection, now)


def place_of(given: Countersignature) -> Head:
    """Return the place in the chain that was countersigned."""
    return Head(given.head.sequence, given.head.hash)


def newest(connection: Connection, *, insecure_deterministic: bool) -> Countersignature | None:
    """Return what `keep` was given last that was newer than what it knew."""
    row = _row(connection)
    if row is None or not row.signature:
        return None
    head = LedgerHead(row.sequence, row.hash, insecure_deterministic)
    return Countersignature(row.federation, head, row.public_key, row.signature)


def confirmed(connection: Connection) -> Head | None:
    """Return the newest place that is known to have been countersigned, or None."""
    row = _row(connection)
    return None if row is None else Head(row.sequence, row.hash)


def check_standing(connection: Connection) -> None:
    """Raise LedgerRolledBack unless the ledger holds all that was ever countersigned."""
    newest_place = confirmed(connection)
    if newest_place is not None:
        check_holds(connection, newest_place)


def check_holds(connection: Connection, place: Head) -> None:
    """Raise LedgerRolledBack unless the ledger holds what was countersigned at `place`."""
    if not ledger_chain.has(connection, place):
        raise LedgerRolledBack(confirmed=place, local=ledger_chain.head_of(connection))


def trust(connection: Connection, public_key: str) -> bool:
    """Take this key for the orchestrator's from now on; what the old one signed stays known.

    Returns:
        False where none is known yet: the first key that signs will be.
    """
    fresh = update(ORCHESTRATOR).values(federation="", public_key=public_key, signature="")
    return bool(connection.execute(fresh).rowcount)


def _row(connection: Connection) -> Row[Any] | None:
    return connection.execute(select(ORCHESTRATOR)).one_or_none()
