"""A real federation on loopback: processes of their own, mTLS, a database, seeded randomness."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time  # noqa: TID251 - waits for real processes
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import tomli_w
from sqlalchemy import Select, create_engine, select

from cli import pki
from cli.config import OperatorConfig
from cli.operator_client import OperatorClient
from common.config import load_settings
from common.ids import GatewayId
from common.protocol import RunState, RunStatus
from common.randomness import InsecureSeed
from common.tls import Role
from gateway.ledger import Ledger
from gateway.workshop import open_ledger
from orchestrator.database import EVENTS, LEDGER_HEADS
from tasks.plan_file import read_plan
from tests.faults.nursery import Forked, nursery
from tests.postgresql import Server, free_port
from tests.signing import order, trust_file

Answer = TypeVar("Answer")

ROOT = Path(__file__).parents[2]
TASK = f"{ROOT / 'tests' / 'tiny_task.py'}:TASK"
SITES = ("alder", "birch", "cedar")
RUN = "run"
SEED = "7"
PATIENCE_S = 200.0


class Federation:
    """Starts, kills and restarts the processes of one federation; each has a log."""

    sites = SITES
    task = TASK
    patience_s = PATIENCE_S  # with a run

    def __init__(
        self,
        folder: Path,
        server: Server | None = None,
        wire_format: str = "float32",
        *,
        keep_updates: bool = False,
        **rounds: object,
    ) -> None:
        """Lay a federation out in `folder`, its journal in a database of `server`, else SQLite."""
        self.wire_format, self.keep_updates = wire_format, keep_updates
        self.folder, self.server = folder, server
        self.database = f"sqlite:///{folder / 'orchestrator' / 'journal.db'}"
        if server is not None:
            self.database = server.tcp_url(server.make_database())
        self.rounds = {"count": 3, "quorum": 3, "deadline_s": 120.0, **rounds}
        self.processes: dict[str, Forked] = {}
        self.commands: dict[str, list[str]] = {}
        self.addresses: list[str] = []  # of the orchestrator, and of its standby
        self.dialled = self.addresses  # by gateways
        pki.init(folder / "pki", "test")
        self.trust = {"plan_keys": str(trust_file(folder))}

    def _lay_out_orchestrator(self, name: str) -> None:
        self.addresses.append(f"127.0.0.1:{free_port()}")
        tables: dict[str, object] = {
            "federation": "test",
            "address": self.addresses[-1],
            "state": str(self.folder / name),
            "shared": str(self.folder / "orchestrator"),
            "database": self.database,
            "restart_grace_s": 30.0,
        }
        self._write(f"{name}.toml", Role.ORCHESTRATOR, name, tables)
        self._write("operator.toml", Role.OPERATOR, "operator", {"address": self.addresses})

    def _write(self, file: str, role: Role, name: str, tables: dict[str, object]) -> None:
        keys = self.folder / "keys" / name
        if not keys.exists():
            pki.issue(self.folder / "pki", role=role, name=name, out=keys)
        tls = {
            "authority": str(keys / "ca.pem"),
            "certificate": str(keys / "cert.pem"),
            "key": str(keys / "key.pem"),
        }
        (self.folder / file).write_text(tomli_w.dumps({**tables, "tls": tls}))

    def start_orchestrator(self, point: str | None = None, *options: str) -> None:
        self._lay_out_orchestrator("orchestrator")
        arguments = ["orchestrator", *self._config("orchestrator"), *options]
        self.start("orchestrator", arguments, point)
        self.until_serving("orchestrator")

    def start_standby(self) -> None:
        """Start another orchestrator, which waits for the end of the first."""
        self._lay_out_orchestrator("standby")
        self.start("standby", ["orchestrator", *self._config("standby"), "--standby"])
        self.until(lambda: "standing_by" in self.log("standby"), "the standby waits")

    def until_serving(self, name: str) -> float:
        """Return how many seconds it took until that orchestrator serves."""
        began, address = time.monotonic(), self.folder / name / "address"

        def serves() -> bool:
            assert self.processes[name].poll() is None, self.log(name)
            return address.exists()

        self.until(serves, f"the {name} serves")
        return time.monotonic() - began

    def start_gateway(self, site: str, point: str | None = None) -> None:
        tables = {
            "address": self.dialled,
            "state": str(self.folder / site),
            "data_set": site,
            "task": {"reference": self.task, "labels": ["no", "yes"]},
            "data": {"corpus": "points", "site": site},
            "trust": self.trust,
            "policy": {"epsilon_budget": 50.0, "allow_kept_updates": self.keep_updates},
        }
        self._write(f"{site}.toml", Role.GATEWAY, site, tables)
        arguments = ["gateway", "run", *self._config(site), "--insecure-deterministic", SEED]
        self.start(site, arguments, point)

    def plan(self) -> dict[str, object]:
        return {
            "name": "tiny",
            "wire_format": self.wire_format,
            "keep_updates": self.keep_updates,
            "task": {"reference": self.task, "labels": ["no", "yes"]},
            "rounds": self.rounds,
            "privacy": {"delta": 1e-5, "target_epsilon": 50.0},
            "hyperparameters": {
                "learning_rate": 0.5,
                "clipping_norm": 1.0,
                "noise_multiplier": 8.0,  # quick to account
                "sampling_rate": 0.5,
                "local_steps": 2,
                "adaptive_clipping": {"smallest": 0.01, "largest": 10.0, "count_noise": 20.0},
            },
            "server": {"momentum": 0.5, "schedule": "linear", "tail_average": 0.5},
            "participants": [{"gateway": site, "declared_units": 60} for site in self.sites],
        }

    def start_run(self) -> None:
        (self.folder / "plan.toml").write_text(tomli_w.dumps(self.plan()))
        complete, initial = read_plan(self.folder / "plan.toml")

        async def start(client: OperatorClient) -> None:
            await client.upload_weights(initial.to_bytes())
            await client.start_run(*order(RUN, complete, "test"))

        self._ask(start)

    def start(self, name: str, arguments: list[str], point: str | None = None) -> None:
        self.commands[name] = arguments
        killed = ["tests.faults.killed", point, "--"] if point else []
        self.processes[name] = nursery().start([*killed, *arguments], self.folder / f"{name}.log")

    def signal(self, name: str, number: signal.Signals) -> None:
        self.processes[name].send_signal(number)

    def until_frozen(self, name: str) -> None:
        status = Path(f"/proc/{self.processes[name].pid}/status")
        self.until(lambda: "State:\tT" in status.read_text(), f"{name} is frozen")

    def has_ended(self, name: str = "orchestrator") -> bool:
        return self.processes[name].poll() is not None

    def wait_for_death(self, name: str) -> None:
        self.until(lambda: self.processes[name].poll() is not None, f"{name} is killed")
        assert self.processes[name].returncode == -9, self.log(name)

    def restart(self, name: str) -> None:
        self.start(name, self.commands[name])

    def finish(self) -> RunStatus:
        """Return the run's last state, once it has ended."""

        async def follow(client: OperatorClient) -> RunStatus:
            states = [status async for status, _ in client.follow_run(RUN)]
            return states[-1]

        return self._ask(follow)

    def ledger(self, site: str) -> Ledger:
        """Stop a gateway and open its ledger: every record is checked."""
        self.stop(site)
        return open_ledger(self.folder / site, InsecureSeed(int(SEED), GatewayId(site)))

    def head_kept(self, site: str) -> tuple[int, str]:
        """Return the head that the orchestrator holds for a gateway."""
        kept = select(LEDGER_HEADS.c.sequence, LEDGER_HEADS.c.hash)
        return tuple(self._journal(kept.where(LEDGER_HEADS.c.gateway == site))[0])

    def updates_taken(self, site: str) -> set[str]:
        """Return the digests of every update that the orchestrator ever took from a gateway."""
        taken = select(EVENTS.c.payload).where(EVENTS.c.kind == "UpdateAccepted")
        said = [payload for (payload,) in self._journal(taken)]
        return {event["digest"] for event in said if event["gateway"] == site}

    def happened(self, kind: str) -> int:
        """Return how often an event of that kind is in the journal."""
        return len(self._journal(select(EVENTS.c.id).where(EVENTS.c.kind == kind)))

    def _journal(self, question: Select) -> list[tuple]:
        engine = create_engine(self.database)
        try:
            with engine.connect() as connection:
                return list(connection.execute(question).all())
        finally:
            engine.dispose()

    def published(self) -> int:
        """Return how many rounds were published."""
        return self.happened("RoundPublished")

    def run_has_ended(self) -> bool:
        return bool(self._journal(select(EVENTS.c.id).where(EVENTS.c.kind == "RunCompleted")))

    def writers(self) -> list[int]:
        """Return the epoch of each event's writer, in the order of writing."""
        return [epoch for (epoch,) in self._journal(select(EVENTS.c.epoch).order_by(EVENTS.c.id))]

    def completed(self) -> str:
        """Return the model of the run once it has ended, every ledger checked."""
        status = self.finish()
        assert status.state is RunState.COMPLETED, status
        assert status.insecure_deterministic
        for site in self.sites:
            self.check_ledger(site)
        return status.model_sha256

    def check_ledger(self, site: str) -> None:
        """Every round charged once, every update that left charged, the head as confirmed."""
        count = self.rounds["count"]
        ledger = self.ledger(site)
        charges, head, given = ledger.charges(), ledger.head, ledger.countersigned()
        ledger.close()
        log = self.log(site)
        rounds = [(RUN, number) for number in range(1, count + 1)]
        assert [(c.terms.run, c.round) for c in charges] == rounds, log
        assert len({charge.clipping_norm for charge in charges}) == len(charges), log
        assert self.updates_taken(site) == {charge.update for charge in charges}, log
        assert self.head_kept(site) == (head.sequence, head.hash) == (count, head.hash), log
        assert given is not None, log
        assert given.head == head, log
        assert "ledger_rolled_back" not in log, log

    def _ask(self, question: Callable[[OperatorClient], Awaitable[Answer]]) -> Answer:
        async def ask() -> Answer:
            settings = load_settings(OperatorConfig, self.folder / "operator.toml")
            async with OperatorClient(settings.address, settings.tls) as client:
                return await asyncio.wait_for(question(client), self.patience_s)

        return asyncio.run(ask())

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        process.send_signal(signal.SIGCONT)  # it may be frozen
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        for name in list(self.processes):
            self.stop(name)

    def until(self, holds, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
            time.sleep(0.05)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _config(self, name: str) -> list[str]:
        return ["--config", str(self.folder / f"{name}.toml")]


def undisturbed_model(federation: Federation) -> str:
    """Return the model of a run in which nothing is killed; the processes are stopped after it."""
    try:
        federation.start_orchestrator()
        for site in SITES:
            federation.start_gateway(site)
        federation.start_run()
        return federation.completed()
    finally:
        federation.close()
