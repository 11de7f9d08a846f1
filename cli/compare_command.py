"""`fedgate run compare`: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.asking import answered
from cli.config import operator_config
from cli.options import ConfigOption
from cli.run_commands import app
from common.accounting import rounded_up
from common.console import OUT, Format, FormatOption, emit_json, emit_table
from common.ids import RunId

if TYPE_CHECKING:
    from cli.comparison import Comparison


@app.command("compare")
def compare(
    a: Annotated[str, typer.Argument(help="One run's name.")],
    b: Annotated[str, typer.Argument(help="The other's.")],
    every: Annotated[  # noqa: FBT002 - an option of a command line
        bool, typer.Option("--all", help="Show settings that are the same, too.")
    ] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show two runs side by side: F1, epsilon, bytes, and the settings that differ.

    Example:
        fedgate run compare first second
    """
    found = answered(_compare(RunId(a), RunId(b), config), "reckoning what both have spent")
    if output is Format.JSON:
        emit_json(found)
    else:
        _show(found, every=every)


async def _compare(a: RunId, b: RunId, config: Path | None) -> Comparison:
    from cli import comparison
    from cli.operator_client import OperatorClient
    from common.wire import plan_from_bytes

    settings = operator_config(config)
    async with OperatorClient(*settings.way) as client:
        (first, plan), (second, other) = await client.run(a), await client.run(b)
    return comparison.compare((first, plan_from_bytes(plan)), (second, plan_from_bytes(other)))


def _show(found: Comparison, *, every: bool) -> None:
    a, b = found.runs
    rows = [
        ("state", a.state, b.state),
        ("rounds published", a.rounds_published, b.rounds_published),
        ("gateways", a.gateways, b.gateways),
        ("F1, dev", _percent(a.f1_dev), _percent(b.f1_dev)),
        ("F1, test", _percent(a.f1_test), _percent(b.f1_test)),
        ("epsilon, the largest", _epsilon(a.epsilon), _epsilon(b.epsilon)),
        ("at delta", a.delta, b.delta),
        ("unit", a.unit, b.unit),
        ("bytes received", f"{a.bytes_received:,}", f"{b.bytes_received:,}"),
        ("bytes sent", f"{a.bytes_sent:,}", f"{b.bytes_sent:,}"),
    ]
    emit_table("what came of them", ("", a.run, b.run), rows)
    shown = [
        (name, _said(mine), _said(other))
        for name, (mine, other) in found.settings.items()
        if every or name in found.differ
    ]
    if shown:
        title = "all settings" if every else "settings that differ"
        emit_table(title, ("setting", a.run, b.run), shown)
    else:
        OUT.print("their plans say the same")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _epsilon(value: float | None) -> str:
    return "none: seeded noise" if value is None else rounded_up(value)


def _said(value: object) -> str:
    return "-" if value is None else str(value)
