"""`fedgate doctor`: what would keep an orchestrator from serving, an operator from reaching it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.asking import answered
from cli.config import DEFAULT, VARIABLE, operator_config
from common.config import each_of, load_settings
from common.console import OUT, Format, FormatOption, emit_json
from common.errors import RequestError

if TYPE_CHECKING:
    from cli.config import OperatorConfig
    from common.findings import Findings

ORCHESTRATOR = Path("orchestrator.toml")


class NothingToLookAt(RequestError):
    """No settings were named, and there are none here."""

    def __init__(self) -> None:
        super().__init__(
            f"there is neither {ORCHESTRATOR} nor {DEFAULT} here, and {VARIABLE} is not set: name "
            "settings with --orchestrator or --operator; at a site use `fedgate-gateway check`"
        )


def doctor(
    orchestrator: Annotated[
        Path | None, typer.Option(help="The orchestrator's settings, TOML; on its machine.")
    ] = None,
    operator: Annotated[
        Path | None, typer.Option(help="An operator's settings, TOML; where the person is.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Look at settings, certificates, ports, database, disk, way and clock; change nothing.

    Without options it looks at what lies here. The exit code is 1 if there is a problem.

    Examples:
        fedgate doctor --orchestrator orchestrator.toml

        fedgate doctor --operator operator.toml --format json
    """
    if orchestrator is None and operator is None:
        orchestrator = ORCHESTRATOR if ORCHESTRATOR.exists() else None
        given = Path(os.environ.get(VARIABLE, DEFAULT))
        operator = given if given.exists() or VARIABLE in os.environ else None
    if orchestrator is None and operator is None:
        raise NothingToLookAt
    found: dict[str, Findings] = {}
    if orchestrator is not None:
        looking = _of_orchestrator(orchestrator)
        found["orchestrator"] = answered(looking, "looking at the orchestrator's machine")
    if operator is not None:
        looking = _of_operator(operator_config(operator))
        found["operator"] = answered(looking, "looking at the way to the orchestrator")
    _say(found, output)
    if not all(each.are_fine for each in found.values()):
        raise typer.Exit(1)


def _say(found: dict[str, Findings], output: Format) -> None:
    from common.findings import print_findings

    if output is Format.JSON:
        emit_json({side: findings.all for side, findings in found.items()})
        return
    for side, findings in found.items():
        OUT.print(side, style="bold")
        print_findings(findings.all)


async def _of_orchestrator(path: Path) -> Findings:
    from orchestrator.checking import Checking
    from orchestrator.config import OrchestratorConfig

    checking = Checking(load_settings(OrchestratorConfig, path))
    await checking.look()
    return checking.findings


async def _of_operator(settings: OperatorConfig) -> Findings:
    """Look at what an operator signs in and signs plans with, and call the orchestrator."""
    from cli.operator_client import OperatorClient
    from cli.plan_keys import signing_key
    from common.clock import SystemClock
    from common.findings import Findings
    from common.surroundings import (
        look_at_certificate,
        look_at_clock,
        look_at_proxy,
        look_at_software,
        look_at_way,
    )

    findings, clock, addresses = Findings(), SystemClock(), each_of(settings.address)
    look_at_software(findings)
    if settings.signing_key is not None:
        with findings.looking_at("signing key"):
            signing_key(settings.signing_key)
            findings.ok("signing key", f"{settings.signing_key} signs plans")
    files = settings.tls.files
    if files is not None and look_at_certificate(findings, files, clock.wall()) is None:
        return findings  # nobody would let it in
    look_at_way(findings, addresses)
    with findings.looking_at("orchestrator"):
        async with OperatorClient(*settings.way) as client:
            runs = await client.list_runs()
            findings.ok("orchestrator", f"answers this person; it has {len(runs)} runs")
            look_at_proxy(findings, addresses)
            look_at_clock(findings, clock.wall(), client.date)
    return findings
