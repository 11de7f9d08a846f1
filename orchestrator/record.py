"""What is written with the events of a run, in their transaction: audit records and lineage."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.auditing import entry_of
from orchestrator.events import RoundPublished, RunCompleted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from common.audit import Entry
    from orchestrator.audit_log import AuditLog
    from orchestrator.auditing import Step
    from orchestrator.lineage_store import LineageStore


class Record:
    """The audit log and the lineage, as runs write them."""

    def __init__(self, log: AuditLog, lineage: LineageStore) -> None:
        self._log = log
        self._lineage = lineage

    def write(self, connection: Connection, steps: Sequence[Step], actor: str) -> None:
        """Put on record what `steps` of one run say, as durably as the transaction."""
        for step in steps:
            entry = entry_of(step, self._log.federation, actor)
            if entry is not None:
                self._log.append(connection, self._with_statement(connection, step, entry))

    def _with_statement(self, connection: Connection, step: Step, entry: Entry) -> Entry:
        """Sign what was published, and have the audit log name what was signed."""
        match step.event:
            case RoundPublished():
                digest = self._lineage.publish(connection, step.after, step.event)
            case RunCompleted():
                digest = self._lineage.complete(connection, step.after, step.event)
            case _:
                return entry
        return replace(entry, facts={**entry.facts, "statement": digest})
