"""Real SQLite under processes that die: commits that fail, before or after they took effect.

What was committed outlives every crash: that is what `synchronous = FULL` promises. A transaction
that was open is rolled back with its connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.simulation.faults import Fault, Faults
from tests.simulation.loop import PROCESS, Crashed, Process


class Databases:
    """What every connection of the simulation asks before it acts."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.away: set[Path] = set()
        self.trained: dict[str, tuple[float, ...]] = {}  # for planted bugs
        self.committed: Callable[[Process, Path], None] = lambda process, path: None

    def check(self, process: Process, path: Path) -> None:
        """Raise where the process is dead or the database is away."""
        if not process.alive:
            raise Crashed
        if path in self.away:
            self.faults.count(Fault.DATABASE_AWAY)
            raise sqlite3.OperationalError("database is away")


CURRENT: list[Databases] = []  # of the simulation that runs now, if one does


class SimulatedConnection(sqlite3.Connection):
    """A connection that ends with its process."""

    def __init__(self, database: str, *args, **kwargs) -> None:
        super().__init__(database, *args, **kwargs)
        self.path = Path(database)
        self.process = PROCESS.get()
        self.databases = CURRENT[0]
        self.process.at_end.append(self.close)

    def cursor(self, *args) -> sqlite3.Cursor:
        self.databases.check(self.process, self.path)
        return super().cursor(*args)

    def commit(self) -> None:
        if not self.in_transaction:
            return
        faults = self.databases.faults
        self.databases.check(self.process, self.path)
        faults.crash_at_commit(self.process)
        if self.total_changes and faults.strikes(Fault.COMMIT_FAILED_BEFORE):
            raise sqlite3.OperationalError("disk I/O error")
        super().commit()
        self.databases.committed(self.process, self.path)
        faults.crash_at_commit(self.process)
        if self.total_changes and faults.strikes(Fault.COMMIT_FAILED_AFTER):
            raise sqlite3.OperationalError("disk I/O error, after the commit")

    def close(self) -> None:
        super().close()
