"""Runs the migrations on the connection that `orchestrator.database` gives."""

from __future__ import annotations

from alembic import context

from orchestrator.database import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
