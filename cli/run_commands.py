"""`fedgate run`: start, watch, list and cancel runs; release a gateway."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.text import Text

from cli.asking import answered, asked
from cli.config import operator_config
from cli.operator_client import OperatorClient
from cli.options import ConfigOption, RunArgument
from common.bad_updates import Standing
from common.clock import SystemClock
from common.console import (
    ERRORS,
    OUT,
    Format,
    FormatOption,
    Pace,
    emit_json,
    emit_lines,
    emit_table,
    working,
)
from common.ids import RunId
from common.protocol import RunState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.protocol import RunStatus
    from common.signatures import RunSignatures

app = typer.Typer(
    no_args_is_help=True, help="Start, watch, list and cancel runs; release a gateway."
)

_STANDINGS = {Standing.WATCH: "on watch", Standing.QUARANTINE: "in quarantine"}


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
    """Start a run: make its initial weights, upload them, sign the plan and hand it over.

    With the same plan and run name this starts nothing twice.

    Examples:
        fedgate run start --plan plan.toml --run-id first

        fedgate run start --plan plan.toml --wait --format json
    """
    asyncio.run(_start(plan, run_id, wait=wait, config=config, output=output))


async def _start(
    plan_file: Path, run_id: str | None, *, wait: bool, config: Path | None, output: Format
) -> None:
    from cli.plan_keys import sign_plan
    from common.wire import plan_id, plan_to_bytes
    from tasks.plan_file import read_plan

    settings = operator_config(config)
    with working("making the plan and its initial weights"):
        plan, initial = read_plan(plan_file)
    name = RunId(run_id or f"{plan.name}-{secrets.token_hex(4)}")
    data = plan_to_bytes(plan)
    signature = sign_plan(settings, name, plan_id(data))
    async with OperatorClient(*settings.way) as client:
        with working("handing the plan over"):
            await client.upload_weights(initial.to_bytes())
            await client.start_run(name, data, signature)
        ERRORS.print(f"run {name} started; watch it with `fedgate run watch {name}`")
        if wait:
            await _follow(client, name)
        _print_status((await client.run(name))[0], output)


@app.command("watch")
def watch(
    run: RunArgument, config: ConfigOption = None, output: FormatOption = Format.TEXT
) -> None:
    """Show a run's state after every change, until it has ended.

    With `--format json` each state is an object on a line of its own, the last one the end.

    Examples:
        fedgate run watch first

        fedgate run watch first --format json | jq .published_round
    """
    asyncio.run(_watch(RunId(run), config, output))


async def _watch(run_id: RunId, config: Path | None, output: Format) -> None:
    settings = operator_config(config)
    async with OperatorClient(*settings.way) as client:
        if output is Format.JSON:
            async for status, _ in client.follow_run(run_id):
                if not status.has_ended:
                    emit_json(status)
        else:
            await _follow(client, run_id)
        _print_status((await client.run(run_id))[0], output)


async def _follow(client: OperatorClient, run_id: RunId) -> None:
    """Show the run on standard error until it has ended, and how long that may yet take.

    On a terminal one line changes; elsewhere there is a line for every change.
    """
    pace, shown = Pace(), ""
    with Live(console=ERRORS, auto_refresh=False, transient=True) as live:
        async for status, _ in client.follow_run(run_id):
            left = pace.left(status.published_round, status.rounds, SystemClock().now())
            line = _line(status)
            if ERRORS.is_terminal:
                live.update(Text(line + (f", about {left} left" if left else "")), refresh=True)
            elif line != shown:
                ERRORS.print(line, markup=False)
            shown = line


def _line(status: RunStatus) -> str:
    inside = sum(gateway.connected for gateway in status.gateways)
    scores = [s for s in status.scores if s.split == "dev"]
    f1 = f", F1 on dev {100 * max(scores, key=lambda s: s.round).f1:.1f}" if scores else ""
    reason = f": {status.reason}" if status.reason else ""
    noted = "".join(f", {note}" for note in _notes(status))
    return (
        f"{status.run_id} {status.state}{reason}, {status.published_round} of {status.rounds} "
        f"rounds published, {inside} of {len(status.gateways)} gateways connected{f1}{noted}"
    )


def _signer(status: RunStatus) -> str:
    """Return the first digits of the key that ordered a run: they are in gateways' trust files."""
    signed = status.plan_signature
    return "nobody" if signed is None else signed.public_key[:16]


def _notes(status: RunStatus) -> Iterator[str]:
    """Yield what there is to know of gateways whose updates are not what they should be."""
    for gateway in status.gateways:
        if gateway.refused is not None:
            yield f"{gateway.gateway}'s update refused ({gateway.refused})"
        if gateway.standing not in {None, Standing.GOOD}:
            yield f"{gateway.gateway} {_STANDINGS[gateway.standing]} (score {gateway.score:.2f})"


@app.command("list")
def list_(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """List every run, the newest first.

    With `--format json` each run is an object on a line of its own.
    """
    runs = asked(OperatorClient, config, lambda client: client.list_runs())
    if output is Format.JSON:
        emit_lines(runs)
        return
    rows = [
        (
            *(r.run_id, r.state, f"{r.published_round}/{r.rounds}", len(r.gateways)),
            *(_signer(r), r.reason),
        )
        for r in runs
    ]
    emit_table("runs", ("run", "state", "rounds", "gateways", "signed by", "reason"), rows)


@app.command("signatures")
def signatures(
    run: RunArgument, config: ConfigOption = None, output: FormatOption = Format.TEXT
) -> None:
    """Prove who ordered a run and what gateways accepted; exit code 1 if something is not proven.

    Signatures and certificates are checked here, against the authority in the settings: what the
    orchestrator says is not believed. JSON holds all that a program of one's own needs to do so.
    """
    from cli.signatures import verified

    settings = operator_config(config)

    async def ask() -> tuple[RunStatus, RunSignatures]:
        async with OperatorClient(*settings.way) as client:
            return (await client.run(RunId(run)))[0], await client.signatures(RunId(run))

    status, found = answered(ask())
    findings = verified(status, found, settings.tls)
    if output is Format.JSON:
        shown = {"plan_signature": found.plan_signature, "acceptances": found.acceptances}
        emit_json({"findings": findings, "plan": found.plan.hex(), **shown})
    else:
        OUT.print(f"plan {findings.plan_digest}, signed by {findings.plan_signed_by}")
        for gateway in findings.accepted:
            OUT.print(f"{gateway} has accepted it, with what the run's status says", markup=False)
        for problem in findings.problems:
            ERRORS.print(f"not proven: {problem}", markup=False)
    if findings.problems:
        raise typer.Exit(1)


@app.command("cancel")
def cancel(
    run: RunArgument, config: ConfigOption = None, output: FormatOption = Format.TEXT
) -> None:
    """End a run; what was published stays."""
    status = asked(OperatorClient, config, lambda client: client.cancel_run(RunId(run)))
    _print_status(status, output)


@app.command("release")
def release(
    run: RunArgument,
    gateway: Annotated[str, typer.Argument(help="The gateway's name.")],
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take a gateway out of quarantine: from the next round on its updates count again."""
    status = asked(
        OperatorClient, config, lambda client: client.release_gateway(RunId(run), gateway)
    )
    _print_status(status, output)


def _print_status(status: RunStatus, output: Format) -> None:
    """Print a run's state; leave with exit code 1 if the run failed."""
    if output is Format.JSON:
        emit_json(status)
    else:
        OUT.print(_line(status), markup=False)
        OUT.print(f"plan signed by {_signer(status)}", markup=False)
        if status.model is not None:
            OUT.print(f"model {status.model} (SHA-256 {status.model_sha256})")
    if status.state is RunState.FAILED:
        raise typer.Exit(1)
