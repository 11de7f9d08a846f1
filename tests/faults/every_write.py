"""kill -9 of orchestrator and gateways at every one of their writes; prints one line of JSON.

    python -m tests.faults.every_write --engine sqlite|postgresql [--list] [--only TEXT]

One federation runs on while whoever comes to a failpoint first is killed there and started again:
each point kills once. Every round must publish the weights that it publishes when nothing is
killed, and every gateway's ledger must hold one charge for each round. `--list` also prints the
points; `--only` kills at those whose name holds a text.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time  # noqa: TID251 - waits for real processes
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import select

from common.errors import UnavailableError
from orchestrator.database import EVENTS
from tests.faults.failpoints import Claims, Point
from tests.faults.federation import SITES, Federation
from tests.faults.nursery import nursery
from tests.faults.writers import never_at_work
from tests.postgresql import Server

ROUNDS = {"count": 3, "deadline_s": 600.0}  # no round is lost to a deadline
LOOK_S = 0.02


class Tended(Federation):
    """A federation of which whoever is killed is started again, by a thread."""

    patience_s = 1200.0

    def __init__(
        self,
        folder: Path,
        server: Server | None = None,
        *,
        kills: bool = False,
        only: str = "",
    ) -> None:
        super().__init__(folder, server, **ROUNDS)
        self.claims = Claims(folder / "claims")
        self._only, self._kills = only, kills
        self._faults: list[str] = []  # of whoever ended otherwise than by a kill

    def start(self, name: str, arguments: list[str], point: str | None = None) -> None:
        assert point is None
        self.commands[name] = arguments
        armed = {"root": self.folder, "claims": self.claims.folder, "only": self._only}
        failpoints = {key: str(value) for key, value in armed.items()} if self._kills else None
        log = self.folder / f"{name}.log"
        self.processes[name] = nursery().start(arguments, log, failpoints)

    def run(self) -> list[str]:
        """Return the weights that each round has published, once the run has completed."""
        self._lay_out_orchestrator("orchestrator")
        self.start("orchestrator", ["orchestrator", *self._config("orchestrator")])
        for site in SITES:
            self.start_gateway(site)
        with self._tending():
            self.start_run()
            status = self.finish()
        assert status.has_ended, status
        return self.published_weights()

    def start_run(self) -> None:
        while not self._faults:
            try:
                super().start_run()
            except UnavailableError:
                time.sleep(LOOK_S)
            else:
                return
        raise AssertionError(self._faults)

    def published_weights(self) -> list[str]:
        published = select(EVENTS.c.payload).where(EVENTS.c.kind == "RoundPublished")
        return [said["weights"] for (said,) in self._journal(published.order_by(EVENTS.c.id))]

    @contextmanager
    def _tending(self) -> Iterator[None]:
        """Start again who was killed, while the block goes on; let nobody end otherwise."""
        over = threading.Event()

        def tend() -> None:
            while not over.wait(LOOK_S):
                for name, process in list(self.processes.items()):
                    if (status := process.poll()) is None:
                        continue
                    if status != -signal.SIGKILL:
                        self._faults.append(f"{name} ended with {status}: {self.log(name)}")
                        return
                    self.restart(name)

        thread = threading.Thread(target=tend)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        assert not self._faults, self._faults


@dataclass
class Report:
    """What was killed, and what came of it."""

    engine: str
    points: dict[str, int] = field(default_factory=dict)  # at which a process was killed, by role
    rounds: int = 0
    rounds_that_differ: int = 0
    gateways_charged_otherwise: int = 0
    uncovered: list[str] = field(default_factory=list)  # writes that came by no door
    never_at_work: list[str] = field(default_factory=list)  # functions that write
    seconds: float = 0.0

    def is_clean(self) -> bool:
        faults = (self.rounds_that_differ, self.gateways_charged_otherwise)
        return not (any(faults) or self.uncovered or self.never_at_work)


def kill_at_every_write(report: Report, folder: Path, only: str = "") -> list[Point]:
    """Run a federation without kills and one with them; keep the report; return the points."""
    began = time.monotonic()
    with ExitStack() as stack:
        server = _server(stack) if report.engine == "postgresql" else None
        calm = Tended(folder / "calm")
        stack.callback(calm.close)
        expected = calm.run()
        calm.close()
        killed = Tended(folder / "killed", server, kills=True, only=only)
        stack.callback(killed.close)
        got = killed.run()
        report.rounds = len(expected)
        differ = [pair for pair in zip(expected, got, strict=True) if pair[0] != pair[1]]
        report.rounds_that_differ = len(differ)
        report.gateways_charged_otherwise = sum(not _is_charged_once(killed, s) for s in SITES)
        points = killed.claims.points()
        report.uncovered = sorted(killed.claims.uncovered())
        report.never_at_work = [] if only else sorted(never_at_work(points))
    report.points = dict(Counter(point.role for point in points))
    report.seconds = round(time.monotonic() - began, 1)
    return points


def _server(stack: ExitStack) -> Server:
    server = Server(fsync=True)
    stack.callback(server.remove)
    server.start()
    return server


def _is_charged_once(federation: Federation, site: str) -> bool:
    try:
        federation.check_ledger(site)
    except AssertionError as error:
        sys.stderr.write(f"{site}: {error}\n")
        return False
    return True


def main() -> int:
    """Return 0 if every round gave the same weights and was charged once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    report = Report(asked.engine)
    with tempfile.TemporaryDirectory() as name:
        points = kill_at_every_write(report, Path(name), asked.only)
    for point in points if asked.list else ():
        sys.stdout.write(f"{point.role:12} {point.name}\n")
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 0 if report.is_clean() else 1


if __name__ == "__main__":
    sys.exit(main())
