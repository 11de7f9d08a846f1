"""The newest head of each gateway's ledger: countersigned, durable, and never lowered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from common.countersignature import countersign
from common.errors import ConflictError
from common.protocol import LedgerHead
from orchestrator.database import LEDGER_HEADS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from sqlalchemy import ColumnElement, Connection

    from common.ids import GatewayId
    from common.protocol import Countersignature
    from orchestrator.fencing import Fence


class LedgerHeadLowered(ConflictError):
    """A gateway's ledger is older than the one that was countersigned, or another branch of it."""

    field = "ledger_head"

    def __init__(self, *, got: LedgerHead, kept: LedgerHead) -> None:
        super().__init__(
            f"this gateway's ledger ends at record {got.sequence} ({got.hash[:12]}), record "
            f"{kept.sequence} ({kept.hash[:12]}) was countersigned before: it was rolled back or "
            "forked, and no update is taken until `fedgate-gateway ledger merge` has united both"
        )


class LedgerHeadMissing(ConflictError):
    """A gateway that has sent its ledger's head before now sends none."""

    field = "ledger_head"

    def __init__(self) -> None:
        super().__init__(
            "the update names no ledger head, and this gateway has named one before: send it with "
            "the ledger that the earlier updates were charged in"
        )


class LedgerHeads:
    """What every gateway's ledger was last seen to hold."""

    def __init__(self, fence: Fence, federation: str, key: Callable[[], Ed25519PrivateKey]) -> None:
        """Keep heads behind `fence`; countersign them with what `key` returns."""
        self._fence = fence
        self._federation = federation
        self._key = key

    def confirm(self, gateway: GatewayId, head: LedgerHead | None) -> Countersignature | None:
        """Countersign a head; durable when this returns. None where none was ever named.

        A head that goes up is taken as it is: nothing here can tell whether it follows the kept
        one. The gateway can, which holds the records.

        Raises:
            LedgerHeadLowered: it is older than the kept one, or has another hash.
            LedgerHeadMissing: there is none, and there was one before.
            Superseded, JournalFailed: it could not be kept.
        """
        with self._fence.writing() as connection:
            if head is None:
                if _has_any(connection, gateway):
                    raise LedgerHeadMissing
                return None
            kept = _kept(connection, gateway, insecure_deterministic=head.insecure_deterministic)
            if kept is not None and kept != head and head.sequence <= kept.sequence:
                raise LedgerHeadLowered(got=head, kept=kept)
            if kept != head:
                _keep(connection, gateway, head, is_first=kept is None)
        return countersign(self._key(), self._federation, gateway, head)

    def newest(
        self, gateway: GatewayId, *, insecure_deterministic: bool
    ) -> Countersignature | None:
        """Return the kept head of one of the gateway's ledgers, or None."""
        with self._fence.writing() as connection:
            kept = _kept(connection, gateway, insecure_deterministic=insecure_deterministic)
        return None if kept is None else countersign(self._key(), self._federation, gateway, kept)


def _kept(
    connection: Connection, gateway: GatewayId, *, insecure_deterministic: bool
) -> LedgerHead | None:
    place = _place(gateway, insecure_deterministic=insecure_deterministic)
    row = connection.execute(select(LEDGER_HEADS).where(*place)).one_or_none()
    return None if row is None else LedgerHead(row.sequence, row.hash, insecure_deterministic)


def _keep(connection: Connection, gateway: GatewayId, head: LedgerHead, *, is_first: bool) -> None:
    seen = {"sequence": head.sequence, "hash": head.hash}
    mode = head.insecure_deterministic
    if is_first:
        row = {"gateway": gateway, "insecure_deterministic": mode, **seen}
        connection.execute(insert(LEDGER_HEADS).values(row))
    else:
        place = _place(gateway, insecure_deterministic=mode)
        connection.execute(update(LEDGER_HEADS).where(*place).values(seen))


def _has_any(connection: Connection, gateway: GatewayId) -> bool:
    ours = select(LEDGER_HEADS.c.sequence).where(LEDGER_HEADS.c.gateway == gateway)
    return connection.execute(ours).first() is not None


def _place(
    gateway: GatewayId, *, insecure_deterministic: bool
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    mode = LEDGER_HEADS.c.insecure_deterministic.is_(insecure_deterministic)
    return LEDGER_HEADS.c.gateway == gateway, mode
