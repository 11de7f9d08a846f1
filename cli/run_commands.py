"""`fedgate run`: start, watch, list and cancel runs."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.config import operator_config
from cli.operator_client import OperatorClient
from common.console import ERRORS, OUT, Format, FormatOption, emit_json, emit_table
from common.ids import RunId
from common.protocol import RunState

if TYPE_CHECKING:
    from common.protocol import RunStatus

app = typer.Typer(no_args_is_help=True, help="Start, watch, list and cancel runs.")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="How to reach the orchestrator, TOML.")
]
RunArgument = Annotated[str, typer.Argument(help="The run's name.")]


@app.command("start")
def start(
    plan: Annotated[Path, typer.Option(help="The plan, TOML.")],
    run_id: Annotated[
        str | None, typer.Option(help="A name for the run; else one is made.")
    ] = None,
    wait: Annotated[  # noqa: FBT002 - an option of a command line
        bool, typer.Option("--wait", help="Stay until the run has ended.")
    ] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Start a run: make its initial weights, upload them, hand over the plan.

    With the same plan and run name this starts nothing twice.
    """
    asyncio.run(_start(plan, run_id, wait=wait, config=config, output=output))


async def _start(
    plan_file: Path, run_id: str | None, *, wait: bool, config: Path | None, output: Format
) -> None:
    from cli.plan_file import read_plan
    from common.wire import plan_to_bytes

    settings = operator_config(config)
    plan, initial = read_plan(plan_file)
    name = RunId(run_id or f"{plan.name}-{secrets.token_hex(4)}")
    async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
        await client.upload_weights(initial.to_bytes())
        await client.start_run(name, plan_to_bytes(plan))
        ERRORS.print(f"run {name} started; watch it with `fedgate run watch {name}`")
        if wait:
            await _follow(client, name)
        _print_status((await client.run(name))[0], output)


@app.command("watch")
def watch(
    run: RunArgument, config: ConfigOption = None, output: FormatOption = Format.TEXT
) -> None:
    """Show a run's state after every change, until it has ended."""
    asyncio.run(_watch(RunId(run), config, output))


async def _watch(run_id: RunId, config: Path | None, output: Format) -> None:
    settings = operator_config(config)
    async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
        await _follow(client, run_id)
        _print_status((await client.run(run_id))[0], output)


async def _follow(client: OperatorClient, run_id: RunId) -> None:
    """Print a line for every published round to standard error, until the run has ended."""
    shown = ""
    async for status, _ in client.follow_run(run_id):
        line = _line(status)
        if line != shown:
            ERRORS.print(line, markup=False)
            shown = line


def _line(status: RunStatus) -> str:
    inside = sum(gateway.connected for gateway in status.gateways)
    scores = [s for s in status.scores if s.split == "dev"]
    f1 = f", F1 on dev {100 * max(scores, key=lambda s: s.round).f1:.1f}" if scores else ""
    reason = f": {status.reason}" if status.reason else ""
    return (
        f"{status.run_id} {status.state}{reason}, {status.published_round} of {status.rounds} "
        f"rounds published, {inside} of {len(status.gateways)} gateways connected{f1}"
    )


@app.command("list")
def list_(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """List every run, the newest first."""
    settings = operator_config(config)

    async def ask() -> tuple[RunStatus, ...]:
        async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
            return await client.list_runs()

    runs = asyncio.run(ask())
    if output is Format.JSON:
        emit_json({"runs": runs})
        return
    rows = [
        (r.run_id, r.state, f"{r.published_round}/{r.rounds}", len(r.gateways), r.reason)
        for r in runs
    ]
    emit_table("runs", ("run", "state", "rounds", "gateways", "reason"), rows)


@app.command("cancel")
def cancel(
    run: RunArgument, config: ConfigOption = None, output: FormatOption = Format.TEXT
) -> None:
    """End a run; what was published stays."""
    settings = operator_config(config)

    async def ask() -> RunStatus:
        async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
            return await client.cancel_run(RunId(run))

    _print_status(asyncio.run(ask()), output)


def _print_status(status: RunStatus, output: Format) -> None:
    """Print a run's state; leave with exit code 1 if the run failed."""
    if output is Format.JSON:
        emit_json(status)
    else:
        OUT.print(_line(status), markup=False)
        if status.model is not None:
            OUT.print(f"model {status.model} (SHA-256 {status.model_sha256})")
    if status.state is RunState.FAILED:
        raise typer.Exit(1)
