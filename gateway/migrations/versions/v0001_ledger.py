"""The ledger's first form."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "stamp",
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1", name="one_stamp")),
        sa.Column("data_key", sa.LargeBinary, nullable=False),
        sa.Column("insecure_deterministic", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "data_sets",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("digest", sa.String, nullable=False),
    )
    data_set = sa.ForeignKey("data_sets.name", ondelete="CASCADE")
    op.create_table(
        "units",
        sa.Column("data_set", sa.String, data_set, primary_key=True),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
    )
    _create_runs()
    _create_charges()
    op.create_table(
        "refused_parents",
        sa.Column("run", sa.String, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("parent", sa.String, primary_key=True),
    )


def _create_runs() -> None:
    data_set = sa.ForeignKey("data_sets.name", ondelete="CASCADE")
    op.create_table(
        "runs",
        sa.Column("run", sa.String, primary_key=True),
        sa.Column("gateway", sa.String, nullable=False),
        sa.Column("plan", sa.String, nullable=False),
        sa.Column("effective", sa.String, nullable=False),
        sa.Column("data_set", sa.String, data_set, nullable=False),
        sa.Column("data_digest", sa.String, nullable=False),
        sa.Column("delta", sa.Float, nullable=False),
        sa.Column("unit", sa.String, nullable=False),
        sa.Column("relation", sa.String, nullable=False),
    )


def _create_charges() -> None:
    run = sa.ForeignKey("runs.run", ondelete="RESTRICT")
    op.create_table(
        "charges",
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("run", sa.String, run, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("parent", sa.String, nullable=False),
        sa.Column("mechanism", sa.String, nullable=False),
        sa.Column("noise_multiplier", sa.Float, nullable=False),
        sa.Column("sampling_rate", sa.Float, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.Column("clipping_norm", sa.Float, nullable=False),
        sa.Column("secret", sa.LargeBinary),
        sa.Column("update_digest", sa.String),
        sa.Column("state", sa.String, nullable=False),
        sa.UniqueConstraint("run", "round", name="one_charge_a_round"),
        sqlite_autoincrement=True,
    )
