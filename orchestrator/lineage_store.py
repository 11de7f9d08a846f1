"""Signed statements of what runs published, each written with the event that it speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from common.lineage import Included, ModelStatement, RoundStatement, Signed, Trained, sign
from common.protocol import Effective
from common.version import SOFTWARE_VERSION
from orchestrator.database import LINEAGE
from orchestrator.server_optimizer import tail_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from sqlalchemy import Connection

    from common.ids import GatewayId, RunId
    from orchestrator.events import RoundPublished, RunCompleted
    from orchestrator.fencing import Fence
    from orchestrator.rounds import Round
    from orchestrator.runs import Run

PAGE = 8  # statements that are read at once: of a thousand gateways each has 150 KB


class LineageStore:
    """What every published model was made of, by run."""

    def __init__(self, fence: Fence, federation: str, key: Callable[[], Ed25519PrivateKey]) -> None:
        """Read behind `fence`; sign with what `key` returns."""
        self._fence = fence
        self._federation = federation
        self._key = key

    def publish(self, connection: Connection, run: Run, event: RoundPublished) -> str:
        """Write the statement of a round that `event` has just closed in `run`; return its digest.

        It is as durable as the transaction that this is part of.
        """
        statement = _of_round(run, event, self._federation, self._last(connection, run.run_id))
        return self._write(connection, run.published, sign(self._key(), statement), run.run_id)

    def complete(self, connection: Connection, run: Run, event: RunCompleted) -> str:
        """Write the statement of the model that `event` has named; return its digest."""
        statement = ModelStatement(
            federation=self._federation,
            run=run.run_id,
            plan=run.plan_digest,
            rounds=run.published,
            parent=run.weights,
            tail=tail_length(run.plan.server, run.plan.rounds.count),
            software=SOFTWARE_VERSION,
            model=event.model,
            model_sha256=event.model_sha256,
            previous=self._last(connection, run.run_id),
        )
        return self._write(connection, run.published + 1, sign(self._key(), statement), run.run_id)

    def statements(self, run_id: RunId) -> Iterator[Signed]:
        """Yield a run's statements in their order; few are in memory at a time."""
        after, page = 0, PAGE
        while page == PAGE:
            later = select(LINEAGE).where(LINEAGE.c.run_id == run_id, LINEAGE.c.sequence > after)
            with self._fence.reading() as connection:
                question = later.order_by(LINEAGE.c.sequence).limit(PAGE)
                rows = connection.execute(question).all()
            for row in rows:
                after = row.sequence
                yield Signed(bytes(row.body), row.public_key, row.signature)
            page = len(rows)

    @staticmethod
    def _write(connection: Connection, sequence: int, signed: Signed, run_id: RunId) -> str:
        row = {"run_id": run_id, "sequence": sequence, **vars(signed)}
        connection.execute(insert(LINEAGE).values(row))
        return signed.digest

    @staticmethod
    def _last(connection: Connection, run_id: RunId) -> str:
        ours = select(LINEAGE).where(LINEAGE.c.run_id == run_id)
        row = connection.execute(ours.order_by(LINEAGE.c.sequence.desc()).limit(1)).first()
        if row is None:
            return ""
        return Signed(bytes(row.body), row.public_key, row.signature).digest


def _of_round(run: Run, event: RoundPublished, federation: str, previous: str) -> RoundStatement:
    closed, plan = _round(run), run.plan
    return RoundStatement(
        federation=federation,
        run=run.run_id,
        plan=run.plan_digest,
        round=run.published,
        rounds=plan.rounds.count,
        attempt=closed.attempt,
        parent=closed.parent,
        updates=tuple(
            Included(
                gateway,
                closed.received[gateway],
                plan.weight(gateway),
                closed.norms.get(gateway),
            )
            for gateway in sorted(event.members)
        ),
        updates_kept=plan.keep_updates,
        total_weight=sum(plan.weight(gateway) for gateway in closed.invited),
        norm_bound=closed.norm_bound,
        strategy="fed_avg",
        server=plan.server,
        software=SOFTWARE_VERSION,
        privacy=plan.privacy,
        trained=_trained(run),
        optimizer_state=event.optimizer_state,
        weights=event.weights,
        weights_sha256=event.weights_sha256,
        previous=previous,
    )


def _round(run: Run) -> Round:
    if run.round is None:
        msg = f"{run.run_id} has published a round and opened none"
        raise RuntimeError(msg)
    return run.round


def _trained(run: Run) -> tuple[Trained, ...]:
    """Return what every gateway trained with, those together that trained alike."""
    alike: dict[Effective, dict[GatewayId, int]] = {}
    for gateway, answer in sorted(run.answers.items()):
        if isinstance(answer, Effective):
            alike.setdefault(answer, {})[gateway] = run.invitations.get(gateway, 0)
    return tuple(Trained(effective, rounds) for effective, rounds in alike.items())
