"""Machines of a federation: disk, clocks, new state folders, and the process that runs there."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from unittest.mock import patch

import gateway.ledger
from gateway.ledger import Ledger
from orchestrator.database import open_database
from orchestrator.signing_key import FILE, load_or_make
from tests.simulation.disk import SimulatedDisk
from tests.simulation.loop import Process, SimulatedClock
from tests.simulation.storms import ORCHESTRATOR


class Machine:
    """A disk, clocks, and the process that runs there now."""

    def __init__(self, name: str, disk: SimulatedDisk, clock: SimulatedClock) -> None:
        self.name = name
        self.disk = disk
        self.clock = clock
        self.processes: list[Process] = []
        self.started = 0

    @property
    def newest(self) -> Process | None:
        """The process that was started last, while it lives."""
        return self.processes[-1] if self.processes and self.processes[-1].alive else None


@cache
def templates() -> dict[str, dict[str, bytes]]:
    """Return the files of new state folders, as the code itself makes them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        open_database(f"sqlite:///{folder / 'journal.db'}").dispose()
        load_or_make(folder)
        with patch.object(gateway.ledger, "system_secret", lambda: bytes(32)):
            Ledger.open(f"sqlite:///{folder / 'ledger.sqlite'}").close()
        ours = {file: (folder / file).read_bytes() for file in ("journal.db", FILE)}
        theirs = {
            file: (folder / file).read_bytes() for file in ("ledger.sqlite", "ledger.sqlite.made")
        }
    return {ORCHESTRATOR: ours, "": theirs}
