"""The invariants I1 to I9, checked on what could be seen from outside."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

from common.plan import Plan
from common.protocol import Receipt, RunNews, Train
from tests.simulation.disk import SimulatedDisk
from tests.simulation.history import Acted, Called, Committed, Entry, History, Trained
from tests.simulation.register import Register
from tests.simulation.training import INITIAL

CALM_S = 90.0  # without any fault: more than every wait of a gateway together


class Checks:
    """Looks at every entry of a history as it comes, and at all of it at the end."""

    def __init__(self, history: History, plan: Plan, folder: Path, calm_s: Callable[[], float]):
        self._history = history
        self._folder = folder
        self._calm_s = calm_s
        self.register = Register(plan, INITIAL.digest, history.violated)
        self.disks: dict[str, SimulatedDisk] = {}
        self._readers: dict[Path, sqlite3.Connection] = {}
        self._rows = 0
        self._epoch, self._writer = 0, ""
        self._known: list[tuple] = [(None, None)]
        self._trained: dict[tuple[str, int], tuple[str, str]] = {}
        self._sent: dict[tuple[str, int], str] = {}
        self._offered: dict[int, str] = {}
        self._weights = folder / "orchestrator" / "weights"
        history.watchers.append(self.watch)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()

    def watch(self, entry: Entry) -> None:
        match entry:
            case Called(name="submit_update", args=(header,)):
                self._leaves(entry.gateway, header)
            case Trained():
                self._reads_data(entry)
            case Acted(name="submit_update", result=Receipt(), args=(header,)):
                self._acknowledged(entry.gateway, header)
            case Acted(name="watch", result=RunNews()):
                self._told(entry.result)

    def committed(self, at: float, writer: str) -> None:
        """Read what the last commit has added to the journal."""
        self._writes(writer)
        kinds = "SELECT id, run_id, sequence, epoch, kind, payload FROM events WHERE id > ?"
        for row in self._ask(self._journal, f"{kinds} ORDER BY id", self._rows):
            place, run, sequence, epoch, kind, payload = row
            self._rows = place
            said = json.loads(payload)
            entry = Committed(at, writer, place, run, sequence, epoch, kind, said)
            self._history.add(entry)
            self.register.read(entry)
            if kind in {"RoundPublished", "RunCompleted"}:
                self._is_durable(said.get("weights") or said["model"])
            if kind == "UpdateLost" and self._calm_s() > CALM_S:
                self._history.violated("I1", f"{said['gateway']} lived, and its update is lost")

    def _writes(self, writer: str) -> None:
        """Check I8: who has taken over last is the only one to change what is known of runs."""
        ((epoch,),) = self._ask(self._journal, "SELECT epoch FROM epochs")
        if epoch != self._epoch:
            self._epoch, self._writer = epoch, writer
        seen = "SELECT (SELECT max(id) FROM events), (SELECT sum(sequence) FROM ledger_heads)"
        known = self._ask(self._journal, seen)
        if known != self._known and writer != self._writer:
            self._history.violated("I8", f"{writer} writes after {self._writer} took over")
        self._known = known

    def after_power_loss(self) -> None:
        """Every published model must still be there."""
        disk = self.disks["orchestrator"]
        for (digest,) in self._ask(self._journal, "SELECT digest FROM blobs"):
            inode = disk.names.get(self._weights / digest)
            if inode is None or blake3(inode.content).hexdigest() != digest:
                self._history.violated("I7", f"a loss of power took weights {digest[:8]}")

    def at_end(self, gateways: list[str]) -> None:
        """Hold every ledger against what was trained."""
        for gateway in gateways:
            query = "SELECT run, round, parent FROM charges"
            charges = self._ask(self._ledger(gateway), query)
            rounds = [(run, number) for run, number, _ in charges]
            if len(rounds) != len(set(rounds)):
                self._history.violated("I6", f"{gateway} was charged twice for one round")
            trained = {n: p for (name, n), (p, _) in self._trained.items() if name == gateway}
            if missing := trained.items() - {(n, parent) for _, n, parent in charges}:
                self._history.violated("I6", f"{gateway} has not booked {sorted(missing)}")
            held = "SELECT count(*) FROM charges WHERE secret IS NOT NULL"
            if self.register.end and self._ask(self._ledger(gateway), held) != [(0,)]:
                self._history.violated("I9", f"{gateway} keeps keys of a run that has ended")
        for (digest,) in self._ask(self._journal, "SELECT digest FROM blobs"):
            self._is_durable(digest)

    def _leaves(self, gateway: str, header) -> None:
        number, digest = header.key.round, header.body.digest
        query = "SELECT parent, update_digest FROM charges WHERE round = ?"
        if self._ask(self._ledger(gateway), query, number) != [(header.parent, digest)]:
            self._history.violated("I6", f"{gateway} sends round {number} before it is booked")
        kept = self.disks[gateway].durable_bytes(self._folder / gateway / "updates" / digest)
        if kept is None or blake3(kept).hexdigest() != digest:
            self._history.violated("I3", f"{gateway} sends round {number} before it is durable")
        if self._sent.setdefault((gateway, number), digest) != digest:
            self._history.violated("I3", f"{gateway} sends two updates for round {number}")

    def _reads_data(self, entry: Trained) -> None:
        self.register.updates[entry.digest] = entry.values
        query = "SELECT parent FROM charges WHERE round = ?"
        if self._ask(self._ledger(entry.gateway), query, entry.round) != [(entry.parent,)]:
            self._history.violated("I6", f"{entry.gateway} trains before it is charged")
        place, made = (entry.gateway, entry.round), (entry.parent, entry.digest)
        if self._trained.setdefault(place, made) != made:
            self._history.violated("I3", f"{place} was trained again with other bytes")

    def _acknowledged(self, gateway: str, header) -> None:
        query = "SELECT payload FROM events WHERE kind = 'UpdateAccepted' AND id <= ?"
        said = [json.loads(payload) for (payload,) in self._ask(self._journal, query, 1 << 60)]
        pairs = {(each["gateway"], each["digest"]) for each in said}
        if (gateway, header.body.digest) not in pairs:
            self._history.violated("I1", f"{gateway} has a receipt that the journal knows not")

    def _told(self, news: RunNews) -> None:
        if news.published_round > self.register.published:
            self._history.violated("I7", f"round {news.published_round} is told, not published")
        match news.instruction:
            case Train(number, weights):
                if self._offered.setdefault(number, weights.digest) != weights.digest:
                    self._history.violated("I3", f"round {number} is offered on two parents")

    def _is_durable(self, digest: str) -> None:
        kept = self.disks["orchestrator"].durable_bytes(self._weights / digest)
        if kept is None or blake3(kept).hexdigest() != digest:
            self._history.violated("I7", f"weights {digest[:8]} are named and not durable")

    @property
    def _journal(self) -> Path:
        return self._folder / "orchestrator" / "journal.db"

    def _ledger(self, gateway: str) -> Path:
        return self._folder / gateway / "ledger.sqlite"

    def _ask(self, path: Path, query: str, *values: object) -> list[tuple]:
        if path not in self._readers:
            self._readers[path] = sqlite3.connect(path)
        return self._readers[path].execute(query, values).fetchall()
