"""Records the state of a run that is going on, as this version leaves it when it is stopped.

    python -m tests.faults.older NAME

A later version must go on from it: `test_upgrade.py`. What was recorded is never recorded again.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

from tests.faults.federation import SITES, Federation
from tests.faults.older import FOLDER, TASK

IN_ROUND_2 = "gateway.ledger:Ledger.charge:before::2"
PASSING = ("address", "health.sock", "presence.json", "features", "uploads")


def record(name: str) -> None:
    """Stop a federation in its second round, which waits for one gateway; keep what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        federation = Federation(Path(folder))
        federation.task = TASK
        try:
            federation.start_orchestrator()
            federation.start_gateway(SITES[0], IN_ROUND_2)
            for site in SITES[1:]:
                federation.start_gateway(site)
            federation.start_run()
            federation.wait_for_death(SITES[0])
            federation.until(lambda: federation.happened("UpdateAccepted") == 5, "two have sent")
        finally:
            federation.close()
        with tarfile.open(FOLDER / f"{name}.tar.xz", "x:xz") as kept:
            for part in ("orchestrator", *SITES):
                kept.add(Path(folder) / part, part, filter=_lasting)


def _lasting(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if Path(entry.name).name in PASSING:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    record(sys.argv[1])
