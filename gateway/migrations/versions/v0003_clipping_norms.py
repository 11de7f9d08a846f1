"""Where adaptive clipping has come to after a round: what the run's next round begins with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; rounds of before were clipped at a fixed norm and lead to none."""
    op.add_column("charges", sa.Column("next_clipping_norm", sa.Float))
