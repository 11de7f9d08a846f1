"""Who has ordered each run: the signature under its plan."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("plan_signature", sa.JSON))


def downgrade() -> None:
    op.drop_column("runs", "plan_signature")
