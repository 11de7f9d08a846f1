"""Real processes that are started together and leave together."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UnavailableError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from typing import Self

GRACE_S = 10.0
TAIL_LINES = 15
PYTHON = (sys.executable, "-P", "-m")  # what lies in the user's folder hides no module of ours


class ProcessDied(UnavailableError):
    """A process of the demo ended before its time."""

    def __init__(self, name: str, code: int, log: Path) -> None:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
        text = "\n".join(f"  {line}" for line in lines)
        super().__init__(f"{name} ended with exit code {code}; the end of its log:\n{text}")


class Processes:
    """Children of this process, their output in log files; all are gone when the block ends."""

    def __init__(self, logs: Path) -> None:
        """Keep each process's output in `logs`, a file for each name, its scratch files beside."""
        self._logs = logs
        self._scratch = logs.parent / "scratch"
        self._running: dict[str, Process] = {}

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._scratch.mkdir(exist_ok=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, name: str, *arguments: str) -> None:
        """Start `python -m …`; it gets no signal of the terminal but only ours."""
        with self._log(name).open("ab") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                *PYTHON,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment(),
            )

    async def run(self, name: str, *arguments: str) -> str:
        """Run `python -m …` to its end; return what it printed, raise ProcessDied if it fails."""
        with self._log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *PYTHON,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=self._environment(),
            )
        self._running[name] = process
        output, _ = await process.communicate()
        self._running.pop(name)
        if process.returncode:
            raise ProcessDied(name, process.returncode, self._log(name))
        return output.decode()

    async def wait(self, name: str) -> None:
        """Return once the process has ended; raise ProcessDied if it failed."""
        code = await self._running[name].wait()
        if code:
            raise ProcessDied(name, code, self._log(name))

    def check(self) -> None:
        """Raise ProcessDied if one that should be running is not."""
        for name, process in self._running.items():
            if process.returncode:
                raise ProcessDied(name, process.returncode, self._log(name))

    async def stop(self) -> None:
        """Ask every process to leave; end those that do not within the grace."""
        alive = [p for p in self._running.values() if p.returncode is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.gather(*(p.wait() for p in alive)), GRACE_S)
        except TimeoutError:
            for process in alive:
                if process.returncode is None:
                    process.kill()
            await asyncio.gather(*(p.wait() for p in alive))
        self._running.clear()

    def _environment(self) -> dict[str, str]:
        scratch = str(self._scratch)  # torch leaves a folder there
        # the models are small: a second thread gains nothing, and spins where processors are busy
        return {**os.environ, "TMPDIR": scratch, "OMP_NUM_THREADS": "1"}

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"
