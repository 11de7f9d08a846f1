"""`fedgate try`: a plan of one's own, with data of one's own, on this machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.demo_command import KeepOption, ModelFolderOption, OpenOption, print_result, run
from common.console import Format, FormatOption, working
from gateway.choices import GradientsBy


def try_(  # noqa: PLR0913 - options of a command line
    sites: Annotated[
        list[str],
        typer.Argument(metavar="NAME=FILE", help="Each participant of the plan, and its data."),
    ],
    test: Annotated[Path, typer.Option(help="Public data, by which the models are scored.")],
    plan: Annotated[Path, typer.Option(help="The plan, TOML.")] = Path("plan.toml"),
    gradients: Annotated[
        GradientsBy, typer.Option(help="How gateways clip; functional takes models of any kind.")
    ] = GradientsBy.ONE_BACKWARD,
    out: ModelFolderOption = Path("model"),
    keep: KeepOption = None,
    open_page: OpenOption = False,  # noqa: FBT002 - an option of a command line
    output: FormatOption = Format.TEXT,
) -> None:
    """Train a plan of your own on this machine, a real gateway for each site's file.

    Keys, settings and processes are what they are on separate machines: `--keep` leaves them.

    Example:
        fedgate try north=north.jsonl south=south.conll --test public.jsonl
    """
    from cli.demo.local import own_federation

    with working("checking the plan, the model and the data"):
        federation = own_federation(plan, sites, test, gradients)
    run(federation, keep, out, partial(print_result, output), open_page=open_page)
