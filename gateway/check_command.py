"""`fedgate-gateway check`: all that would keep this site from taking part, each with its mend."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.config import load_settings
from common.console import OUT, Format, FormatOption, emit_json, emit_table, working
from gateway.config import GatewayConfig
from gateway.options import ConfigOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.plan import Unit
    from gateway.checking import Checking
    from tasks.task import DataReport


def check(
    config: ConfigOption = Path("gateway.toml"),
    plan: Annotated[
        Path | None, typer.Option(help="A plan's file, TOML: would this gateway accept it?")
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="A run's name: its plan is asked of the orchestrator.")
    ] = None,
    offline: Annotated[  # noqa: FBT002 - an option of a command line
        bool, typer.Option("--offline", help="Look at nothing beyond this machine.")
    ] = False,
    rehearsal: Annotated[  # noqa: FBT002
        bool, typer.Option(help="Take a step on the data, for its time.")
    ] = True,
    output: FormatOption = Format.TEXT,
) -> None:
    """Check settings, way, certificate, machine, data and ledger; nothing is charged.

    A gateway of the same name goes on undisturbed. The exit code is 1 if there is a problem.

    Examples:
        fedgate-gateway check --config gateway.toml

        fedgate-gateway check --plan plan.toml --offline

        fedgate-gateway check --run first --format json
    """
    settings = load_settings(GatewayConfig, config)
    from gateway.checking import Asked, Checking

    checking = Checking(settings)
    with working("looking at the machine, the way, the data and a step of training"):
        asyncio.run(checking.look(Asked(plan, run, offline, rehearsal)))
    if output is Format.JSON:
        emit_json(_everything(checking))
    else:
        _show(checking)
    if not checking.findings.are_fine:
        raise typer.Exit(1)


def _everything(checking: Checking) -> dict[str, object]:
    survey = checking.survey
    report = None if survey is None else survey.report
    return {
        "findings": checking.findings.all,
        "gateway": checking.name,
        "device": checking.device,
        "data": report,
        "bad_lines": 0 if survey is None else survey.bad_lines,
        "first_bad_lines": () if survey is None else survey.first_bad,
        "policy": checking.settings.policy,
        "obeys": checking.obeys,
        "privacy": None if report is None else _budgeted(checking, sorted(report.per_unit)),
        "rehearsal": checking.rehearsal,
    }


def _budgeted(checking: Checking, units: Sequence[Unit]) -> dict[str, object]:
    """Return of what the policy's budget speaks: a data set's first plan settles the unit."""
    from common.plan import Relation

    delta = checking.settings.policy.delta_ceiling
    return {"units": units, "relation": Relation.ADD_OR_REMOVE_ONE, "delta": delta}


def _show(checking: Checking) -> None:
    from common.findings import print_findings

    if checking.survey is not None:
        _show_report(checking.survey.report)
    OUT.print(f"gateway {checking.name or '(unknown)'}", style="bold")
    print_findings(checking.findings.all)


def _show_report(report: DataReport) -> None:
    rows = [("sentences", report.sentences), ("words", report.words), *report.per_label.items()]
    rows += [(f"units: {unit}", count) for unit, count in report.per_unit.items()]
    if report.shared:
        rows.append(("of several persons, left out where the unit is the person", report.shared))
    emit_table(f"{report.source}, {report.split}", ("what", "count"), rows)
