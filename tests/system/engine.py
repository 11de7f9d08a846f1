"""Composed services on a real Docker Engine, and what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time  # noqa: TID251 - waits for real containers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASE = ROOT / "docker-compose.yml"
PATIENCE_S = 900.0
GATEWAYS = ("gateway-1", "gateway-2", "gateway-3")


def has_engine() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


NEEDS_ENGINE = [
    pytest.mark.system,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not has_engine(), reason="no Docker engine answers"),
]


def docker(
    *arguments: str, timeout: float = 120, environment: Mapping[str, str] | None = None
) -> str:
    """Return what a docker command prints; a failing one fails the test with its output."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Stack:
    """What one `docker compose up` starts, of one file and what is laid over it."""

    def __init__(self, project: str, *files: Path, **environment: str) -> None:
        self.project, self.environment = project, environment
        self._options = [option for file in files for option in ("--file", str(file))]

    def compose(self, *arguments: str, timeout: float = 120) -> str:
        chosen = ("compose", "--project-name", self.project, *self._options)
        return docker(*chosen, *arguments, timeout=timeout, environment=self.environment)

    def up(self, *services: str) -> None:
        """Return once these services, or all, are healthy."""
        self.compose("up", "--detach", "--wait", *services, timeout=1500)

    def start_run(self) -> None:
        """Do what the service `start` does, and return once it is done."""
        self.compose("run", "--rm", "--no-TTY", "start", timeout=PATIENCE_S)

    def down(self) -> None:
        self.compose("down", "--volumes", timeout=300)

    def inside(self, service: str, *command: str, timeout: float = 120) -> str:
        """Return what a command prints in a service's container."""
        return self.compose("exec", "--no-TTY", service, *command, timeout=timeout)

    def the_run(self) -> dict[str, Any]:
        """Return the one run, as the operator's command has it."""
        listed = self.inside("orchestrator", "fedgate", "run", "list", "--format", "json")
        (run,) = map(json.loads, listed.splitlines())
        assert isinstance(run, dict)
        return run

    def finished(self) -> dict[str, Any]:
        """Return the one run once it has ended."""
        self.inside("orchestrator", "fedgate", "run", "watch", "compose", timeout=PATIENCE_S)
        return self.the_run()

    def until(self, holds: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
            time.sleep(0.2)

    def services(self) -> dict[str, dict[str, Any]]:
        """Return each service's state by its name."""
        listed = self.compose("ps", "--all", "--format", "json").splitlines()
        return {each["Service"]: each for each in map(json.loads, listed)}

    def inspected(self) -> dict[str, dict[str, Any]]:
        """Return all that the engine knows of each service's container."""
        numbers = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(docker("inspect", *numbers))
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def left_behind(self) -> list[str]:
        """Return every container, volume and network of the project."""
        mine = f"label=com.docker.compose.project={self.project}"
        kinds: Sequence[tuple[str, ...]] = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [line for kind in kinds for line in docker(*kind, "-q", "--filter", mine).split()]
