"""`fedgate run export-figures`: a run's public figures, for TensorBoard and MLflow."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.config import operator_config
from cli.options import ConfigOption, RunArgument
from cli.run_commands import app
from common.console import OUT, Format, FormatOption, emit_json, working
from common.errors import RequestError
from common.ids import RunId

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cli.config import OperatorConfig
    from cli.figure_stores import FigureStore
    from cli.figures import Figures
    from cli.operator_client import OperatorClient
    from common.console import Work
    from common.protocol import RunStatus


class NowhereToGo(RequestError):
    """No store was named."""

    def __init__(self) -> None:
        super().__init__(
            "say where the figures are to go: --tensorboard FOLDER, --mlflow URI, or both"
        )


@app.command("export-figures")
def export_figures(
    run: RunArgument,
    tensorboard: Annotated[
        Path | None, typer.Option(help="A folder; the run's figures go into one of its name.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(metavar="URI", help="Such as http://127.0.0.1:5000.")
    ] = None,
    follow: Annotated[  # noqa: FBT002 - an option of a command line
        bool, typer.Option("--follow", help="Go on until the run has ended.")
    ] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a run's public figures, round by round, for TensorBoard and MLflow.

    Scores, epsilon of the gateway that has spent most, updates, bytes, norms; the plan's settings,
    and who ordered it. Asked again, it adds what is new.

    Examples:
        fedgate run export-figures first --tensorboard figures

        fedgate run export-figures first --mlflow sqlite:///mlflow.db --follow
    """
    from cli.figure_stores import MlflowRun, TensorBoardFolder

    if tensorboard is None and mlflow is None:
        raise NowhereToGo
    settings = operator_config(config)
    stores: list[FigureStore] = []
    with ExitStack() as stack, working(f"exporting the figures of {run}") as work:
        if tensorboard is not None:
            stores.append(stack.enter_context(closing(TensorBoardFolder(tensorboard / run))))
        if mlflow is not None:
            store = MlflowRun(mlflow, settings.tls.federation(), run)
            stores.append(stack.enter_context(closing(store)))
        said = asyncio.run(_export(settings, RunId(run), stores, work, follow=follow))
    told = {**said, "tensorboard": tensorboard and tensorboard / run, "mlflow": mlflow}
    if output is Format.JSON:
        emit_json(told)
        return
    where = " and ".join(str(told[each]) for each in ("tensorboard", "mlflow") if told[each])
    OUT.print(f"{said['points']} new figures of {said['rounds']} rounds: {where}", markup=False)


async def _export(
    settings: OperatorConfig, run: RunId, stores: list[FigureStore], work: Work, *, follow: bool
) -> dict[str, object]:
    """Put the figures into all stores, again with each round; return what was done."""
    from common.clock import SystemClock

    points, rounds, clock = 0, 0, SystemClock()
    async for figures, rounds, total in _figures(settings, run, follow=follow):
        at = clock.wall().timestamp()
        points += max([await asyncio.to_thread(each.put, figures, at) for each in stores])
        work.reached(rounds, total)
    return {"run": run, "rounds": rounds, "points": points}


async def _figures(
    settings: OperatorConfig, run: RunId, *, follow: bool
) -> AsyncIterator[tuple[Figures, int, int]]:
    """Yield (figures, rounds that are published, of how many), now and after every change."""
    from cli.audit_client import AuditClient
    from cli.evidence import Evidence
    from cli.figures import RoundTimes, figures_of, with_times
    from cli.operator_client import OperatorClient
    from common.clock import SystemClock

    times, seen, clock = RoundTimes(), None, SystemClock()
    async with OperatorClient(*settings.way) as client, AuditClient(*settings.way) as auditor:
        async for status, plan in _states(client, run, follow=follow):
            times.see(status.published_round, clock.now())
            if (status.published_round, status.scores, status.state) == seen:
                continue
            seen = (status.published_round, status.scores, status.state)
            signed = await auditor.lineage(run)
            ordered = status.plan_signature
            evidence = Evidence(settings.tls.federation(), run, plan, ordered, signed)
            figures = await asyncio.to_thread(figures_of, status, evidence)
            yield with_times(figures, times), status.published_round, status.rounds


async def _states(
    client: OperatorClient, run: RunId, *, follow: bool
) -> AsyncIterator[tuple[RunStatus, bytes]]:
    if not follow:
        yield await client.run(run)
        return
    async for state in client.follow_run(run):
        yield state
