"""The `fedgate-gateway` command.

Each command imports what it needs: a probe that ran every few seconds would else load torch.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from common.config import load_settings
from common.console import (
    ERRORS,
    OUT,
    Format,
    FormatOption,
    VersionOption,
    emit_json,
    run_app,
)
from gateway.audit_commands import app as audit
from gateway.check_command import check
from gateway.config import GatewayConfig
from gateway.enrol_command import enroll
from gateway.epsilon_commands import epsilon, noise
from gateway.init_command import init
from gateway.ledger_commands import app as ledger
from gateway.options import ConfigOption, SeedOption
from gateway.presence import is_present, write_presence
from gateway.web_commands import app as web
from gateway.web_commands import pause, resume

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.ids import GatewayId
    from common.randomness import InsecureSeed
    from gateway.egress_tally import Tally
    from gateway.trust import PlanTrust
    from gateway.watching import Watcher
    from gateway.workshop import Workshop

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.add_typer(ledger, name="ledger")
app.command("enroll")(enroll)
app.add_typer(audit, name="audit")
app.add_typer(web, name="web")
app.command("init")(init)
app.command("check")(check)
app.command("pause")(pause)
app.command("resume")(resume)


@app.callback()
def fedgate_gateway(version: VersionOption = False) -> None:  # noqa: FBT002 - done by then
    """One site's side of a federation: trains on data that never leave it."""


@app.command("run")
def run(
    config: ConfigOption = Path("gateway.toml"),
    seed: SeedOption = None,
) -> None:
    """Take part: register, train when told to, submit, wait; until stopped.

    Example:
        fedgate-gateway run --config gateway.toml
    """
    from common import logs
    from common.allocator import GIB, keep_on_the_heap

    settings = load_settings(GatewayConfig, config)
    logs.configure(settings.log.style, verbose=settings.log.verbose)
    keep_on_the_heap(GIB)  # of a round's memory the next round makes use
    asyncio.run(_run(settings, seed))


async def _run(settings: GatewayConfig, seed: int | None) -> None:
    from common.clock import SystemClock
    from common.retry import Backoff
    from gateway.agent import Agent
    from gateway.client import GrpcClient
    from gateway.egress_tally import Tally
    from gateway.renewal import Renewal

    trust = _trust(settings)
    workshop = _workshop(settings, seed)
    _tell_of(workshop, settings, seed)
    tally = Tally()
    counted = tally if settings.web is not None else None  # nobody else asks
    async with (
        GrpcClient(settings.address, settings.tls, http2=settings.http2, tally=counted) as client,
        _watched(settings, tally, seed) as watcher,
    ):
        agent = Agent(
            workshop,
            client,
            Backoff(limit_s=2.0),
            lambda connected: write_presence(settings.state, connected=connected),
            trust,
            Renewal(settings.tls, client, SystemClock()).run,
            watcher=watcher,
        )
        write_presence(settings.state, connected=False)  # an older process may have left another
        working = asyncio.create_task(agent.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
        try:
            await working
        except asyncio.CancelledError:
            log = _log()
            log.info("stopped")
        finally:
            workshop.close()


def _tell_of(workshop: Workshop, settings: GatewayConfig, seed: int | None) -> None:
    """Log what this process starts with."""
    log = _log()
    if workshop.insecure_deterministic:
        log.warning("randomness_is_seeded", seed=seed, note="NOTHING OF THIS IS PRIVATE")
    log.info("device", setting=str(settings.device), taken=workshop.device.type)
    log.info("data_checked", sentences=workshop.report.sentences, source=workshop.report.source)
    if workshop.pause.is_on:
        log.warning("still_paused", since=workshop.pause.since)


def _log() -> Any:
    import structlog

    return structlog.get_logger()


@asynccontextmanager
async def _watched(
    settings: GatewayConfig, tally: Tally, seed: int | None = None
) -> AsyncIterator[Watcher]:
    """Lend what the settings have look on; only then is it loaded."""
    from common.telemetry import TracesNeedTheExtra
    from gateway.identity import gateway_name
    from gateway.watching import Several

    watchers: list[Watcher] = []
    async with AsyncExitStack() as stack:
        if settings.metrics is not None:
            from gateway.metrics import measured

            watchers.append(
                await stack.enter_async_context(
                    measured(settings.metrics.address, settings.tls, settings.state)
                )
            )
        if settings.traces is not None:
            try:
                from gateway.traces import traced
            except ImportError as error:
                raise TracesNeedTheExtra from error
            name = gateway_name(settings.tls.certificate)
            watchers.append(await stack.enter_async_context(traced(settings.traces, name)))
        if settings.web is not None:
            from common.clock import SystemClock
            from gateway.web.server import serving_site_page

            name = gateway_name(settings.tls.certificate)
            who = name, _insecure(seed, name)
            page = serving_site_page(settings.web, settings, who, tally, SystemClock())
            watchers.append(await stack.enter_async_context(page))
        yield Several(*watchers)


def _trust(settings: GatewayConfig) -> PlanTrust:
    """Return whose plans are obeyed; a trust file that names nobody is found at once."""
    from gateway.identity import gateway_identity
    from gateway.trust import PlanTrust, read_plan_keys

    identity = gateway_identity(settings.tls.certificate)
    trust = PlanTrust(identity.federation, partial(read_plan_keys, settings.trust.plan_keys))
    trust.read_keys()
    return trust


def _workshop(settings: GatewayConfig, seed: int | None) -> Workshop:
    from gateway.identity import gateway_name
    from gateway.workshop import Workshop
    from tasks.loading import load_task

    name = gateway_name(settings.tls.certificate)
    insecure = _insecure(seed, name)
    return Workshop(name, settings, load_task(settings.task.reference), insecure)


def _insecure(seed: int | None, name: GatewayId) -> InsecureSeed | None:
    """Return where randomness comes from under --insecure-deterministic."""
    from common.randomness import InsecureSeed

    return None if seed is None else InsecureSeed(seed, name)


@app.command("health")
def health(config: ConfigOption = Path("gateway.toml"), output: FormatOption = Format.TEXT) -> None:
    """Say whether this gateway runs and is connected; exit code 0 if so."""
    present = is_present(load_settings(GatewayConfig, config).state)
    if output is Format.JSON:
        emit_json({"connected": present})
    else:
        ERRORS.print("connected" if present else "not connected")
    raise typer.Exit(0 if present else 1)


@app.command("egress")
def egress(output: FormatOption = Format.TEXT) -> None:
    """List every field that may leave this gateway; nothing else can."""
    from collections import Counter

    from gateway.egress import BESIDE, MANIFEST

    entries = tuple(MANIFEST.values())
    if output is Format.JSON:
        counts = Counter(entry.kind for entry in entries)
        fields = [
            {"field": e.field, "class": e.kind, "admits": e.rule.words, "why": e.why}
            for e in entries
        ]
        beside = [{"name": a.name, "class": a.kind, "why": a.why} for a in BESIDE]
        emit_json({"counts": counts, "fields": fields, "beside": beside})
        return
    for entry in entries:
        OUT.print(f"{entry.field}: {entry.kind}", style="bold")
        OUT.print(f"    {entry.rule.words}\n    {entry.why}", markup=False)
    for aside in BESIDE:
        OUT.print(f"beside the messages, {aside.name}: {aside.kind or 'not hidden'}", style="bold")
        OUT.print(f"    {aside.why}", markup=False)


app.command("epsilon")(epsilon)
app.command("noise")(noise)


def main() -> None:
    """Run the command line."""
    run_app(app)


if __name__ == "__main__":
    main()
