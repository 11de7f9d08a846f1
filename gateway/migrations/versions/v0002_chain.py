"""The chain of records, and what the orchestrator has countersigned.

What was charged before is chained in the order of booking, then the refused parents, sorted: every
image of one ledger gets the same chain as far as it goes. These records bear no mark, so of two
images that were forked before this version, equal charges of one round count as one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.ledger_rows import facts_of_charge
from gateway.records import EMPTY, Facts, Kind, after

revision = "0002"
down_revision = "0001"

CHARGED = """
    select charges.*, runs.gateway, runs.plan, runs.effective, runs.data_set, runs.data_digest,
        runs.delta, runs.unit, runs.relation
    from charges join runs on runs.run = charges.run order by charges.sequence
"""
REFUSED = "select run, round, parent from refused_parents order by run, round, parent"


def upgrade() -> None:
    """Create the tables and chain what is there."""
    records = op.create_table(
        "records",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("facts", sa.String, nullable=False),
        sa.Column("previous", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
    )
    op.create_table(
        "orchestrator",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_orchestrator")),
        sa.Column("federation", sa.String, nullable=False),
        sa.Column("public_key", sa.String, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
        sa.Column("signature", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    head = EMPTY
    for kind, facts in _written_before():
        record = after(head, kind, facts)
        op.bulk_insert(records, [{**vars(record), "kind": str(kind)}])
        head = record.head


def _written_before() -> list[tuple[Kind, Facts]]:
    connection = op.get_bind()
    charges = connection.execute(sa.text(CHARGED)).all()
    refused = connection.execute(sa.text(REFUSED)).all()
    insecure = bool(connection.scalar(sa.text("select insecure_deterministic from stamp")))
    return [
        *((Kind.CHARGE, facts_of_charge(row, mark="", insecure=insecure)) for row in charges),
        *((Kind.REFUSED_PARENT, row._asdict()) for row in refused),
    ]
