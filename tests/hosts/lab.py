"""Hosts of one's own on this machine: network namespaces on a switch whose cables can be bad.

    with Lab(2) as lab:
        lab.cable(1, delay_ms=100, loss=0.05)
        process = lab.start(1, ["python", "-m", ...], log)

Needs root, Linux, `ip` (iproute2), `nsenter`, `setpriv` and `unshare` (util-linux). Nothing but
one small file has a name outside the lab's own processes, which end with the one that made it, even
by SIGKILL; the kernel removes the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.hosts.switch import NET

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

ROOT = Path(__file__).parents[2]
PATIENCE_S = 10.0
# in a mount namespace of its own: names resolve as the file says at that moment
WITH_NAMES = 'mount --bind "$0" /etc/hosts && exec "$@"'


def address(number: int) -> str:
    """Return the address that host `number` begins with."""
    return f"{NET}.{number}"


def why_not() -> str | None:
    """Return why no lab can be made here, None if one can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are network namespaces: they need Linux and root"
    for tool in ("ip", "nsenter", "setpriv", "unshare"):
        if shutil.which(tool) is None:
            return f"hosts need `{tool}` (Debian: iproute2, util-linux)"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
        subprocess.run(["unshare", "--net", "--mount", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces or no /dev/net/tun here: {error}"
    return None


class Lab:
    """Hosts 1 to `count` at 10.77.0.1 and on, for as long as the block lasts."""

    def __init__(self, count: int, *, congestion: str = "cubic") -> None:
        self._count, self._congestion = count, congestion
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="fedgate-hosts-"))
        self._names = self._folder / "hosts"
        self._names.write_text("127.0.0.1 localhost\n")
        self._switch = subprocess.Popen(
            [sys.executable, "-m", "tests.hosts.switch", str(self._count), self._congestion],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self._namespaces: list[str] = self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()  # a stopped one too
            process.wait()
        for end in (self._switch.stdin, self._switch.stdout):
            if end is not None:
                end.close()
        try:
            self._switch.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._switch.kill()
            self._switch.wait()
        shutil.rmtree(self._folder)

    def start(
        self, number: int, command: Sequence[str], log: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process on a host; it is killed at the end of the lab."""
        bound = ["setpriv", "--pdeathsig", "KILL"]  # if the test is killed, so is the process
        named = ["unshare", "--mount", "sh", "-c", WITH_NAMES, str(self._names)]
        process = subprocess.Popen(
            [*bound, *self._enter(number), *named, *command],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._processes.append(process)
        return process

    def run(self, number: int, command: Sequence[str]) -> str:
        """Return what a short command on a host prints."""
        run = subprocess.run(
            [*self._enter(number), *command], cwd=ROOT, check=True, capture_output=True, text=True
        )
        return run.stdout

    def name(self, **addresses: str) -> None:
        """Let names resolve to addresses, on every host, from now on."""
        lines = (f"{address} {name}" for name, address in addresses.items())
        self._names.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def move(self, number: int, old: str, new: str) -> None:
        """Give a host another address for its old one."""
        self.run(number, ["ip", "addr", "del", f"{old}/24", "dev", "eth0"])
        self.run(number, ["ip", "addr", "add", f"{new}/24", "dev", "eth0"])

    def cable(self, number: int, *, delay_ms: float = 0, loss: float = 0, mbit: float = 0) -> None:
        """Make a host's cable so, in each direction; frames under way are not changed."""
        self._set(number, delay_s=delay_ms / 1000, loss=loss, bits_per_s=mbit * 1e6)

    def cut(self, number: int, *, cut: bool = True) -> None:
        """Let nothing through to or from a host, silently, or let all through again."""
        self._set(number, cut=cut)

    def close(self, number: int) -> None:
        """Put a host behind a firewall from now on: it may dial out, and nobody may dial it."""
        self._set(number, is_closed=True)

    def carried(self, number: int) -> tuple[int, int]:
        """Return how many bytes of frames a host sent, and how many were sent to it."""
        sent, received = self._set(number)[number - 1]
        return sent, received

    def _enter(self, number: int) -> list[str]:
        return ["nsenter", f"--net={self._namespaces[number - 1]}", "--"]

    def _set(self, number: int, **changes: object) -> list[list[int]]:
        assert self._switch.stdin is not None
        self._switch.stdin.write(json.dumps({"host": number, **changes}) + "\n")
        self._switch.stdin.flush()
        carried: list[list[int]] = self._answer()
        return carried

    def _answer(self) -> Any:
        assert self._switch.stdout is not None
        line = self._switch.stdout.readline()
        if not line:
            raise ChildProcessError("the lab's switch has ended; see its stderr")
        return json.loads(line)
