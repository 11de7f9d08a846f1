"""A real federation, each of its processes on a host of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time  # noqa: TID251 - waits for real processes
from collections.abc import Callable, Sequence
from pathlib import Path

import tomli_w

from cli import pki
from cli.plan_keys import KEY_FILE, PUBLIC_FILE, make_signing_key
from common.tls import Role
from tests.hosts.lab import ROOT, Lab, address

NAME = "fed.lab"  # of the orchestrator, which is host 1
ORCHESTRATOR, PORT, ENROLMENT_PORT = 1, 8443, 8444
ELSEWHERE = address(101)  # where the orchestrator may move
SITES = ("alder", "birch", "cedar")  # hosts 2, 3, 4
PATIENCE_S = 200.0


class Federation:
    """Keys, settings and processes of one federation in a lab."""

    def __init__(
        self, lab: Lab, folder: Path, task: str, sites: Sequence[str], **http2: float
    ) -> None:
        """Lay everything out; `task` is a file below tests/."""
        self.enrolment: dict[str, object] = {}
        self.lab, self.folder, self.sites, self.http2 = lab, folder, sites, http2
        self.task = {"reference": f"{ROOT / 'tests' / task}:TASK", "labels": ["no", "yes"]}
        lab.name(**{NAME: address(ORCHESTRATOR)})
        pki.init(folder / "pki", "test")
        make_signing_key(folder / "signing", "operator")

    def host(self, site: str) -> int:
        return SITES.index(site) + 2

    def start_orchestrator(self) -> None:
        listens = {"address": f"0.0.0.0:{PORT}", "state": str(self.folder / "orchestrator")}
        if self.enrolment:
            listens = {**listens, "enrolment": self.enrolment}
        self._write("orchestrator", Role.ORCHESTRATOR, {"federation": "test", **listens})
        signing_key = str(self.folder / "signing" / KEY_FILE)
        dials = {"address": f"127.0.0.1:{PORT}", "signing_key": signing_key}
        self._write("operator", Role.OPERATOR, dials)
        self._start(ORCHESTRATOR, "orchestrator", ["orchestrator"])
        self.until((self.folder / "orchestrator" / "address").exists, "the orchestrator serves")

    def open_enrolment(self) -> None:
        """Have the orchestrator enrol gateways; to be said before it starts."""
        signs = self.folder / "pki" / "intermediate"
        self.enrolment = {
            "address": f"0.0.0.0:{ENROLMENT_PORT}",
            "advertised": f"{address(ORCHESTRATOR)}:{ENROLMENT_PORT}",
            "certificate": str(signs / "cert.pem"),
            "key": str(signs / "key.pem"),
        }

    def enrol_gateways(self) -> None:
        """Give each site a token; each makes its key on its own host."""
        self._write("admin", Role.ADMIN, {"address": f"127.0.0.1:{PORT}"})
        config = ("--config", str(self.folder / "admin.toml"), "--format", "json")
        for site in self.sites:
            create = [sys.executable, "-m", "cli", "enroll", "create", site, *config]
            token = json.loads(self.lab.run(ORCHESTRATOR, create))["token"]
            out = ("--out", str(self.folder / "keys" / site))
            enroll = [sys.executable, "-m", "gateway", "enroll", "--token", token, *out]
            self.lab.run(self.host(site), enroll)

    def start_gateways(self, addresses: Sequence[str] = (f"{NAME}:{PORT}",)) -> None:
        for site in self.sites:
            tables = {
                "address": list(addresses),
                "state": str(self.folder / site),
                "data_set": site,
                "task": self.task,
                "data": {"corpus": "points", "site": site},
                "trust": {"plan_keys": str(self.folder / "signing" / PUBLIC_FILE)},
                "policy": {"epsilon_budget": 50.0},
            }
            self._write(site, Role.GATEWAY, tables)
            self._start(self.host(site), site, ["gateway", "run"], "--insecure-deterministic", "7")
        for site in self.sites:
            self.until(lambda site=site: "registered " in self.log(site), f"{site} is there")

    def start_run(self, **rounds: object) -> None:
        plan = {
            "name": "hosts",
            "task": self.task,
            "rounds": {"count": 1, "quorum": len(self.sites), "deadline_s": 120.0, **rounds},
            "privacy": {"delta": 1e-5, "target_epsilon": 50.0},
            "hyperparameters": {
                "learning_rate": 0.5,
                "clipping_norm": 1.0,
                "noise_multiplier": 8.0,  # quick to account
                "sampling_rate": 0.5,
                "local_steps": 1,
            },
            "participants": [{"gateway": site, "declared_units": 60} for site in self.sites],
        }
        (self.folder / "plan.toml").write_text(tomli_w.dumps(plan))
        command = ["cli", "run", "start", "--plan", str(self.folder / "plan.toml"), "--wait"]
        options = ("--run-id", "run", "--format", "json")
        self.run = self._start(ORCHESTRATOR, "operator", command, *options)

    def finish(self) -> dict:
        """Return what the operator's command says once the run has ended, all went well."""
        assert self.run.wait(PATIENCE_S) == 0, self.log("operator")
        said = self.log("operator")
        status: dict = json.loads(said[said.index("{") :])
        assert status["state"] == "completed", status
        return status

    def counted(self) -> dict[str, int]:
        """Return in how many rounds each gateway's update counted, once the run has ended."""
        return {each["gateway"]: each["rounds_counted"] for each in self.finish()["gateways"]}

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            logs = {path.name: path.read_text()[-2000:] for path in self.folder.glob("*.log")}
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s; {logs}"
            time.sleep(0.02)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _start(
        self, host: int, name: str, command: Sequence[str], *options: str
    ) -> subprocess.Popen[bytes]:
        config = ["--config", str(self.folder / f"{name}.toml")]
        with (self.folder / f"{name}.log").open("ab") as log:
            return self.lab.start(host, [sys.executable, "-m", *command, *config, *options], log)

    def _write(self, name: str, role: Role, tables: dict[str, object]) -> None:
        keys = self.folder / "keys" / name
        places = (NAME, address(ORCHESTRATOR), ELSEWHERE, "127.0.0.1")
        hosts = places if role is Role.ORCHESTRATOR else None
        if not keys.exists():  # else it has enrolled
            pki.issue(self.folder / "pki", role=role, name=name, out=keys, hosts=hosts)
        files = {"authority": "ca.pem", "certificate": "cert.pem", "key": "key.pem"}
        tls = {name: str(keys / file) for name, file in files.items()}
        text = tomli_w.dumps({**tables, "tls": tls, "http2": self.http2})
        (self.folder / f"{name}.toml").write_text(text)
