"""A real federation on loopback: processes of their own, mTLS, SQLite, seeded randomness."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time  # noqa: TID251 - waits for real processes
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import tomli_w

from cli import pki
from cli.config import OperatorConfig
from cli.operator_client import OperatorClient
from cli.plan_file import read_plan
from common.config import load_settings
from common.ids import GatewayId
from common.protocol import RunStatus
from common.randomness import InsecureSeed
from common.tls import Role
from common.wire import plan_to_bytes
from gateway.ledger import Ledger
from gateway.workshop import open_ledger

Answer = TypeVar("Answer")

ROOT = Path(__file__).parents[2]
TASK = f"{ROOT / 'tests' / 'tiny_task.py'}:TASK"
SITES = ("alder", "birch", "cedar")
RUN = "run"
SEED = "7"
PATIENCE_S = 120.0


class Federation:
    """Starts, kills and restarts the processes of one federation; each has a log."""

    def __init__(self, folder: Path, **rounds: object) -> None:
        self.folder = folder
        self.rounds = {"count": 3, "quorum": 3, "deadline_s": 60.0, **rounds}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.commands: dict[str, list[str]] = {}
        self.address = ""
        pki.init(folder / "pki", "test")
        self._write("orchestrator.toml", Role.ORCHESTRATOR, "orchestrator", self._orchestrator())

    def _orchestrator(self) -> dict[str, object]:
        state = str(self.folder / "orchestrator")
        return {
            "federation": "test",
            "address": self.address or "127.0.0.1:0",
            "state": state,
            "restart_grace_s": 30.0,
        }

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

    def start_orchestrator(self, point: str | None = None) -> None:
        self.start("orchestrator", ["orchestrator", *self._config("orchestrator")], point)
        known = self.folder / "orchestrator" / "address"
        self.until(known.exists, "the orchestrator listens")
        if not self.address:
            self.address = known.read_text().strip()
            self._write(
                "orchestrator.toml", Role.ORCHESTRATOR, "orchestrator", self._orchestrator()
            )
            self._write("operator.toml", Role.OPERATOR, "operator", {"address": self.address})

    def start_gateway(self, site: str, point: str | None = None) -> None:
        tables = {
            "address": self.address,
            "state": str(self.folder / site),
            "data_set": site,
            "task": {"reference": TASK, "labels": ["no", "yes"]},
            "data": {"corpus": "points", "site": site},
            "policy": {"epsilon_budget": 50.0},
        }
        self._write(f"{site}.toml", Role.GATEWAY, site, tables)
        arguments = ["gateway", "run", *self._config(site), "--insecure-deterministic", SEED]
        self.start(site, arguments, point)

    def start_run(self) -> None:
        plan = {
            "name": "tiny",
            "task": {"reference": TASK, "labels": ["no", "yes"]},
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
            "participants": [{"gateway": site, "declared_units": 60} for site in SITES],
        }
        (self.folder / "plan.toml").write_text(tomli_w.dumps(plan))
        complete, initial = read_plan(self.folder / "plan.toml")

        async def start(client: OperatorClient) -> None:
            await client.upload_weights(initial.to_bytes())
            await client.start_run(RUN, plan_to_bytes(complete))

        self._ask(start)

    def start(self, name: str, arguments: list[str], point: str | None = None) -> None:
        self.commands[name] = arguments
        killed = ["tests.faults.killed", point, "--"] if point else []
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *killed, *arguments],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

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
        kept = "select sequence, hash from ledger_heads where gateway = ?"
        return self._journal(kept, site)[0]

    def updates_taken(self, site: str) -> set[str]:
        """Return the digests of every update that the orchestrator ever took from a gateway."""
        taken = "select payload from events where kind = 'UpdateAccepted'"
        said = [json.loads(payload) for (payload,) in self._journal(taken)]
        return {event["digest"] for event in said if event["gateway"] == site}

    def happened(self, kind: str) -> int:
        """Return how often an event of that kind is in the journal."""
        return len(self._journal("select 1 from events where kind = ?", kind))

    def _journal(self, question: str, *values: str) -> list[tuple]:
        with closing(sqlite3.connect(self.folder / "orchestrator" / "journal.db")) as journal:
            return journal.execute(question, values).fetchall()

    def _ask(self, question: Callable[[OperatorClient], Awaitable[Answer]]) -> Answer:
        async def ask() -> Answer:
            settings = load_settings(OperatorConfig, self.folder / "operator.toml")
            async with OperatorClient(settings.address, settings.tls) as client:
                return await asyncio.wait_for(question(client), PATIENCE_S)

        return asyncio.run(ask())

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
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
