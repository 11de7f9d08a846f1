"""What needs two people, and who has asked for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "confirmations",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("asked_by", sa.String(63), nullable=False),
        sa.Column("confirmed_by", sa.String(63), nullable=True),
        sa.Column("good_until", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("confirmations")
