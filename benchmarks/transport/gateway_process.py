"""Real gateways that do not train: each answers with the constant that is its own.

    python -m benchmarks.transport.gateway_process FOLDER ADDRESS plain|tls NAME [NAME …]

The agent, its channel, the checks of what comes and goes and the store that keeps an update are
the real ones, and so is what writes the update in the plan's format. Instead of training and of
the ledger's records there is one filled array.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.transport import plain, signing
from benchmarks.transport.model import TASK, TASK_DIGEST, update_of
from benchmarks.transport.moments import Ears, ListeningClient
from common import logs
from common.allocator import GIB, keep_on_the_heap
from common.audit import EMPTY
from common.descriptors import allow_many
from common.protocol import LedgerHead
from common.retry import Backoff
from common.tls import TlsFiles
from gateway.agent import Agent
from gateway.gateway import ForeignWeights
from gateway.pause import Pause
from gateway.policy import Accepted
from gateway.updates import UpdateStore

if TYPE_CHECKING:
    from common.audit import Sealed
    from common.ids import PlanId, RunId
    from common.plan import Plan
    from common.update_form import Update
    from gateway.gateway import TrainRound


class ConstantGateway:
    """Stands in for a gateway and for what makes it ready, in the agent's eyes."""

    insecure_deterministic = False
    tasks = {TASK: TASK_DIGEST}  # noqa: RUF012 - never changed

    def __init__(self, name: str, folder: Path) -> None:
        """Keep updates in `folder`."""
        self._name = name
        self._updates = UpdateStore(folder)
        self.pause = Pause(folder)
        self._kept: list[Any] = []
        self._rounds = 0
        self.record_head = EMPTY  # of the audit log

    @property
    def ledger_head(self) -> LedgerHead:
        """A head that goes up by one record a round."""
        return LedgerHead(self._rounds, f"{self._rounds:064x}")

    def review(self, _run: RunId, plan: Plan, _digest: PlanId) -> Accepted:
        """Accept whatever is asked."""
        self._form = plan.update_form
        return Accepted(plan.hyperparameters, None)

    def begins(self, _run: RunId, _number: int) -> bool:
        """Nothing is charged, so each round is a new one."""
        return True

    def gateway(self, _run: RunId) -> ConstantGateway:
        """Return what answers a round."""
        return self

    def fed_round(self, train: TrainRound) -> Update:
        """Check the parent as a gateway does; keep and return the constant difference."""
        delivered = train.parent
        if delivered.weights.digest != delivered.announced:
            raise ForeignWeights(got=delivered.weights.digest, announced=delivered.announced)
        update = update_of(self._name, self._form)
        self._kept.append(self._updates.keep(update.data, update.digest))
        self._rounds += 1
        return update

    def release(self, _run: RunId, _published_round: int) -> None:
        """Let go of what was kept."""
        for digest in self._kept:
            self._updates.discard(digest)
        self._kept.clear()

    def forget(self, run: RunId) -> None:
        """Let go of what was kept."""
        self.release(run, 0)

    def confirm(self, _countersigned: object) -> None:
        """Believe it."""

    def see_record(self, sealed: Sealed) -> None:
        """Remember where the audit log stands."""
        self.record_head = sealed.checkpoint.head

    def kept_runs(self) -> tuple[RunId, ...]:
        """Nothing is kept from one process to the next."""
        return ()


async def take_part(folder: Path, address: str, *, tls: bool, names: list[str]) -> None:
    """Be the gateways `names` until cancelled."""
    ears = Ears(len(names))
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            keys = folder / "keys" / name
            files = TlsFiles(
                authority=keys / "ca.pem", certificate=keys / "cert.pem", key=keys / "key.pem"
            )
            with nullcontext() if tls else plain.dialling_plainly(name):
                client = ListeningClient(address, files, name, ears)
            tasks.create_task(_agent(folder, name, client))


async def _agent(folder: Path, name: str, dialled: ListeningClient) -> None:
    async with dialled as client:
        workshop = cast("Any", ConstantGateway(name, folder / name))
        trust = signing.trust(folder, name)
        await Agent(workshop, client, Backoff(), lambda _connected: None, trust).run()


if __name__ == "__main__":
    logs.configure("json")
    keep_on_the_heap(GIB)
    allow_many()
    where, orchestrator, how, *gateways = sys.argv[1:]
    asyncio.run(take_part(Path(where), orchestrator, tls=how == "tls", names=gateways))
