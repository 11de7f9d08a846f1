"""An upload that is cut by kill -9 of either end and by a partition; prints one line of JSON.

    python -m tests.faults.torn_upload --mib 100

A gateway trains one round of a model of that size. Each time a fifth of its update more has been
sent, something happens: the orchestrator is killed, the gateway is killed, the orchestrator is
killed again, nothing passes between them until both have given the connection up. What is sent is
counted on the wire.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time  # noqa: TID251 - real processes run meanwhile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from common.protocol import RunState
from tests.faults.federation import PATIENCE_S, Federation
from tests.faults.proxy import Proxy

SITE = "alder"
PARTITION = "partition"
CUTS = ("orchestrator", SITE, "orchestrator", PARTITION)
MOST = 1.15  # bytes sent for each byte of the update
PARTITION_S = 20.0  # longer than either end waits for a sign of life
TASK = """from tests.wide_task import WideTask

TASK = WideTask({mib})
"""


class OneGateway(Federation):
    """One gateway, a model of some MiB, one round; the gateway dials the proxy."""

    sites = (SITE,)

    def __init__(self, folder: Path, mib: int) -> None:
        super().__init__(folder, count=1, quorum=1, deadline_s=900.0)
        (folder / "wide.py").write_text(TASK.format(mib=mib))
        self.task = f"{folder / 'wide.py'}:TASK"

    def plan(self) -> dict[str, object]:
        plan = super().plan()
        del plan["server"]
        plan["hyperparameters"] = {
            "learning_rate": 0.5,
            "clipping_norm": 1.0,
            "noise_multiplier": 8.0,
            "sampling_rate": 0.05,
            "local_steps": 1,
        }
        return plan


@dataclass
class Report:
    """What was sent, and what for."""

    mib: int
    update_bytes: int = 0  # nearly: without its header and two small layers
    sent_bytes: int = 0
    sent_per_byte: float = 0.0
    cuts: tuple[str, ...] = CUTS
    connections: int = 0
    updates_counted: int = 0
    charges: int = 0
    seconds: float = 0.0

    def is_clean(self) -> bool:
        return self.updates_counted == self.charges == 1 and self.sent_per_byte <= MOST


def tear(report: Report, folder: Path, partition_s: float = PARTITION_S) -> None:
    """Let an update be sent through every cut; keep the report."""
    began = time.monotonic()
    with ExitStack() as stack:
        federation = OneGateway(folder, report.mib)
        stack.callback(federation.close)
        federation.start_orchestrator()
        proxy = Proxy(federation.addresses[0])
        stack.callback(proxy.close)
        federation.dialled = [proxy.address]
        federation.start_gateway(SITE)
        federation.start_run()
        report.update_bytes = report.mib << 20
        for number, cut in enumerate(CUTS, 1):
            with proxy.held_at(number * report.update_bytes // (len(CUTS) + 1), PATIENCE_S):
                if cut == PARTITION:
                    time.sleep(partition_s)
                else:
                    federation.signal(cut, signal.SIGKILL)
                    federation.wait_for_death(cut)
            if cut != PARTITION:
                federation.restart(cut)
        _judge(federation, proxy, report)
    report.seconds = round(time.monotonic() - began, 1)


def _judge(federation: Federation, proxy: Proxy, report: Report) -> None:
    status = federation.finish()
    assert status.state is RunState.COMPLETED, status
    ledger = federation.ledger(SITE)
    charges = ledger.charges()
    ledger.close()
    report.charges = len(charges)
    report.updates_counted = len({c.update for c in charges} & federation.updates_taken(SITE))
    report.sent_bytes, report.connections = proxy.sent, proxy.connections
    report.sent_per_byte = round(proxy.sent / report.update_bytes, 3)


def main() -> int:
    """Return 0 if the update was counted once and hardly more than its bytes were sent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=100)
    report = Report(parser.parse_args().mib)
    with tempfile.TemporaryDirectory() as name:
        tear(report, Path(name))
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 0 if report.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main())
