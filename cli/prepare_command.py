"""`fedgate run prepare`: an order, with which a run is started from the orchestrator's page."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.config import operator_config
from cli.operator_client import OperatorClient
from cli.options import ConfigOption
from cli.run_commands import app
from common.console import OUT, Format, FormatOption, emit_json
from common.ids import RunId

if TYPE_CHECKING:
    from common.ids import PlanId


@app.command("prepare")
def prepare(
    plan: Annotated[Path, typer.Option(help="The plan, TOML.")],
    run_id: Annotated[str, typer.Option(help="The run's name, which is signed too.")],
    out: Annotated[Path, typer.Option(help="Where the order goes.")],
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Do all of `start` but the start: upload the initial weights, sign the plan, write an order.

    An operator starts the run with it on the orchestrator's page; it holds no secret.

    Example:
        fedgate run prepare --plan plan.toml --run-id first --out first.order
    """
    digest = asyncio.run(_prepare(plan, RunId(run_id), out, config))
    if output is Format.JSON:
        emit_json({"run_id": run_id, "plan_digest": digest, "order": str(out)})
        return
    OUT.print(f"{out} orders run {run_id}: start it on the page, under `Start a run`", markup=False)


async def _prepare(plan_file: Path, name: RunId, out: Path, config: Path | None) -> PlanId:
    from cli.plan_keys import sign_plan
    from common.key_files import write_new
    from common.run_order import order_to_text
    from common.wire import plan_id, plan_to_bytes
    from tasks.plan_file import read_plan

    settings = operator_config(config)
    plan, initial = read_plan(plan_file)
    data = plan_to_bytes(plan)
    digest = plan_id(data)
    order = order_to_text(name, data, sign_plan(settings, name, digest))
    async with OperatorClient(*settings.way) as client:
        await client.upload_weights(initial.to_bytes())
    write_new(out.parent, {out.name: order.encode()})
    return digest
