"""Where the orchestrator's audit log was last seen, and what did not fit to it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table; nothing has been seen yet."""
    op.create_table(
        "audit_heads",
        sa.Column("seen", sa.Integer, primary_key=True),
        sa.Column("federation", sa.String, nullable=False),
        sa.Column("sequence", sa.Integer, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
        sa.Column("at", sa.String, nullable=False),
        sa.Column("public_key", sa.String, nullable=False),
        sa.Column("signature", sa.String, nullable=False),
        sa.Column("problem", sa.String, nullable=False),
        sa.Column("accepted", sa.Boolean, nullable=False),
    )
