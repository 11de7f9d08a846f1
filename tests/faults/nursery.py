"""Starts processes of ours by forking one that has imported all they need: in a tenth of the time.

    python -m tests.faults.nursery

Each line of standard input is an order, as JSON: {"arguments", "log", "failpoints"}; the answer is
the process's number. When a process ends, its number and its status are written as well.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import time  # noqa: TID251 - waits for real processes
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.faults.failpoints import ROOT, Claims, Failpoints

PATIENCE_S = 60.0


class Nursery:
    """The process that is forked; processes that it has started end with it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self._said = b""
        self._begun: list[int] = []
        self._ended: dict[int, int] = {}

    def start(
        self, arguments: Sequence[str], log: Path, failpoints: Mapping[str, str] | None = None
    ) -> Forked:
        """Run a module of ours with its arguments."""
        log.touch()  # for who reads it before the process has begun
        order = {"arguments": arguments, "log": str(log), "failpoints": failpoints}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        while not self._begun:
            self._listen(PATIENCE_S)
        return Forked(self, self._begun.pop())

    def status(self, number: int, timeout_s: float = 0.0) -> int | None:
        """Return how a process ended, None if it has not within `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        self._listen(0.0)
        while number not in self._ended and (left := deadline - time.monotonic()) > 0.0:
            self._listen(left)
        return self._ended.get(number)

    def close(self) -> None:
        with self._process as process:  # which closes its pipes
            process.terminate()

    def _listen(self, timeout_s: float) -> None:
        assert self._process.stdout is not None
        assert self._process.poll() is None, "the nursery has ended"
        file = self._process.stdout.fileno()
        if select.select([file], [], [], timeout_s)[0]:
            self._said += os.read(file, 1 << 16)
        *lines, self._said = self._said.split(b"\n")
        for line in lines:
            word = json.loads(line)
            if "status" in word:
                self._ended[word["process"]] = word["status"]
            else:
                self._ended.pop(word["process"], None)  # of an earlier one of that number
                self._begun.append(word["process"])


@cache
def nursery() -> Nursery:
    """Return this process's nursery, which is begun when it is first needed."""
    begun = Nursery()
    atexit.register(begun.close)
    return begun


class Forked:
    """A process that a nursery has started; it is used as `subprocess.Popen` is."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid

    @property
    def returncode(self) -> int | None:
        return self._nursery.status(self.pid)

    def poll(self) -> int | None:
        return self._nursery.status(self.pid)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        status = self._nursery.status(self.pid, timeout_s)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout_s)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve() -> None:
    """Fork for each order until standard input ends; let nothing outlive this process."""
    _import_all()
    answers = os.dup(1)
    os.dup2(2, 1)  # what a rehearsal logs is no answer
    _rehearse()
    children: set[int] = set()

    def ended(*_: object) -> None:
        while children:
            number, status = os.waitpid(-1, os.WNOHANG)
            if not number:
                return
            children.discard(number)
            _say(answers, process=number, status=os.waitstatus_to_exitcode(status))

    def end(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGCHLD, ended)
    signal.signal(signal.SIGTERM, end)
    for line in sys.stdin.buffer:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        child = os.fork()
        if not child:
            _become(**json.loads(line))
        children.add(child)
        _say(answers, process=child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    end()


def _import_all() -> None:
    import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: PLC0415
    import psycopg  # noqa: PLC0415
    import torch  # noqa: PLC0415

    import gateway.agent  # noqa: PLC0415
    import gateway.cli  # noqa: PLC0415
    import gateway.client  # noqa: PLC0415
    import gateway.workshop  # noqa: PLC0415
    import orchestrator.server  # noqa: PLC0415
    import tests.tiny_task  # noqa: F401, PLC0415

    del cryptography, psycopg, torch, gateway, orchestrator


def _rehearse() -> None:
    """Train one round, so that what a process makes ready with its first is there after a fork."""
    from common.ids import RunId  # noqa: PLC0415
    from common.randomness import InsecureSeed  # noqa: PLC0415
    from common.tls import TlsFiles  # noqa: PLC0415
    from common.wire import plan_id, plan_to_bytes  # noqa: PLC0415
    from gateway.gateway import DeliveredWeights, TrainRound  # noqa: PLC0415
    from gateway.workshop import Workshop  # noqa: PLC0415
    from tests import at_work  # noqa: PLC0415
    from tests.tiny_task import TASK  # noqa: PLC0415

    labels, run, nowhere = ("no", "yes"), RunId("rehearsal"), Path("nowhere")
    rounds = {"count": 1, "maximum": 1}
    plan, weights = at_work.plan_for(TASK, labels, units=60, rounds=rounds)
    tls = TlsFiles(authority=nowhere, certificate=nowhere, key=nowhere)
    with tempfile.TemporaryDirectory() as folder:
        settings = at_work.settings(Path(folder), tls, labels).model_copy(update={"threads": 1})
        seed = InsecureSeed(1, at_work.SITE)
        workshop = Workshop(at_work.SITE, settings, TASK, seed)
        workshop.review(run, plan, plan_id(plan_to_bytes(plan)))
        gateway = workshop.gateway(run)
        assert gateway is not None
        gateway.fed_round(TrainRound(run, 1, DeliveredWeights(weights.digest, weights)))
        workshop.close()


def _say(to: int, **word: int) -> None:
    os.write(to, json.dumps(word).encode() + b"\n")


def _become(arguments: Sequence[str], log: str, failpoints: Mapping[str, str] | None) -> None:
    """Be the process that was ordered; never return."""
    status = 1
    try:
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, file), (2, file)):
            os.dup2(source, target)
        sys.argv = list(arguments)
        if failpoints is not None:
            _install(arguments[0], **failpoints)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = _status(ended.code)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its top
        import traceback  # noqa: PLC0415

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status(code: Any) -> int:
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        return 1
    return int(code or 0)


def _install(role: str, root: str, claims: str, only: str) -> None:
    Failpoints(role, Path(root), Claims(Path(claims)), only).install()


if __name__ == "__main__":
    serve()
