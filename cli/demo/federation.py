"""The demo itself: starts the real commands as processes, watches, gathers what they report."""

from __future__ import annotations

import asyncio
import json
import webbrowser
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.config import OperatorConfig
from cli.demo.result import Baselines, DemoResult
from cli.demo.workspace import connect, prepare
from cli.model_folder import read_model
from cli.operator_client import OperatorClient
from common.config import load_settings
from common.errors import ConflictError
from common.protocol import RunState
from common.wire import plan_from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli.demo.local import LocalFederation
    from cli.demo.processes import Processes
    from cli.demo.progress import Progress
    from cli.demo.workspace import Workspace
    from common.clock import Clock
    from common.protocol import RunStatus

POLL_S = 0.1


class DemoFailed(ConflictError):
    """The demo's run ended without a model."""

    def __init__(self, status: RunStatus, folder: Path) -> None:
        super().__init__(
            f"the run {status.state}: {status.reason}; run again with `--keep {folder.name}` and "
            "read the logs in its folder `logs`"
        )


class Demo:
    """One run of the demo."""

    def __init__(
        self,
        settings: LocalFederation,
        processes: Processes,
        progress: Progress,
        clock: Clock,
        *,
        open_page: bool = False,
    ) -> None:
        """Prepare to run `settings`, and to open the orchestrator's page in a browser."""
        self._open_page = open_page
        self._settings = settings
        self._run = settings.run
        self._processes = processes
        self._progress = progress
        self._clock = clock
        self._phases: dict[str, float] = {}

    async def run(self, folder: Path, out: Path) -> DemoResult:
        """Run it in `folder`; write the model to `out`; return what was found."""
        with self._phase("start", "making keys and starting the processes"):
            workspace = prepare(folder, self._settings)
            await self._start(workspace)
        with self._phase("train", "reading the data, then training"):
            status = await self._watch(workspace)
        with self._phase("score", "scoring the test split, writing the model"):
            await self._processes.wait("evaluator")
            await self._command(
                "export", workspace, "model", "export", self._run, "--out", str(out)
            )
            status = await self._status(workspace)
        baselines = None
        if self._settings.is_compared:
            with self._phase("compare", "training without privacy and without the federation"):
                baselines = await self._baselines(workspace)
        _, card = read_model(out)
        return DemoResult.of(
            self._settings,
            status,
            card,
            baselines=baselines,
            phases=self._phases,
            path=(out / "model.safetensors").resolve(),
        )

    @contextmanager
    def _phase(self, name: str, text: str) -> Iterator[None]:
        self._progress.phase(text)
        begun = self._clock.now()
        yield
        self._phases[name] = self._clock.now() - begun

    async def _start(self, workspace: Workspace) -> None:
        """Start the orchestrator, the gateways, the run and its evaluator."""
        begin = self._processes.start
        await begin("orchestrator", "orchestrator", "--config", str(workspace.orchestrator))
        connect(workspace, self._settings, await self._address(workspace))
        for site in self._settings.data:
            config = str(workspace.gateway(site))
            await begin(f"gateway-{site}", "gateway", "run", "--config", config)
        await self._command(
            "start",
            workspace,
            "run",
            "start",
            "--plan",
            str(workspace.plan),
            "--run-id",
            self._run,
        )
        watching = (
            "model",
            "evaluate",
            "--watch",
            self._run,
            "--config",
            str(workspace.operator),
        )
        cache = ("--cache", str(workspace.evaluator_cache))
        task = ("--task", self._settings.reference)
        await begin("evaluator", "cli", *watching, *task, *self._public(), *cache)
        async with self._client(workspace) as client:
            link, _ = await client.create_web_link()
        self._progress.phase(f"watch it: {link}")
        if self._open_page:
            await asyncio.to_thread(webbrowser.open, link)

    async def _address(self, workspace: Workspace) -> str:
        while not workspace.address_file.exists():
            self._processes.check()
            await self._pause()
        return workspace.address_file.read_text(encoding="utf-8").strip()

    async def _watch(self, workspace: Workspace) -> RunStatus:
        """Show the run until it has ended; raise if it failed or a process died."""
        watching = asyncio.create_task(self._follow(workspace))
        try:
            while not watching.done():
                self._processes.check()
                await self._pause()
            status = await watching
        finally:
            watching.cancel()
        if status.state is not RunState.COMPLETED:
            raise DemoFailed(status, workspace.folder)
        return status

    async def _follow(self, workspace: Workspace) -> RunStatus:
        last: RunStatus | None = None
        async with self._client(workspace) as client:
            async for status, plan in client.follow_run(self._run):
                await self._progress.show(status, plan_from_bytes(plan))
                last = status
        if last is None:
            msg = "a run's states ended before the first"
            raise RuntimeError(msg)
        return last

    async def _status(self, workspace: Workspace) -> RunStatus:
        async with self._client(workspace) as client:
            return (await client.run(self._run))[0]

    async def _baselines(self, workspace: Workspace) -> Baselines:
        sites = [
            argument
            for site in self._settings.data
            for argument in ("--site", f"{site}={workspace.gateway_state(site) / 'features'}")
        ]
        labels = [part for label in self._settings.labels for part in ("--label", label)]
        cache = ("--cache", str(workspace.evaluator_cache))
        arguments = ("model", "baselines", *self._public(), *sites, *labels, *cache)
        output = await self._processes.run("baselines", "cli", *arguments, "--format", "json")
        return Baselines.model_validate(json.loads(output))

    def _public(self) -> tuple[str, ...]:
        """Return the options that name the data which models are scored on."""
        named = self._settings.public.items()
        return tuple(part for key, value in named for part in (_option(key), value))

    async def _command(self, name: str, workspace: Workspace, *arguments: str) -> str:
        config = ("--config", str(workspace.operator))
        return await self._processes.run(name, "cli", *arguments, *config)

    def _client(self, workspace: Workspace) -> OperatorClient:
        settings = load_settings(OperatorConfig, workspace.operator)
        return OperatorClient(*settings.way)

    async def _pause(self) -> None:
        await self._clock.sleep_until(self._clock.now() + POLL_S)


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"
