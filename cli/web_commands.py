"""`fedgate web`: the way to the orchestrator's page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.asking import answered
from cli.config import operator_config
from cli.operator_client import OperatorClient
from common.console import ERRORS, OUT, Format, FormatOption, emit_json

app = typer.Typer(no_args_is_help=True, help="The orchestrator's page.")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="How to reach the orchestrator, TOML.")
]


@app.command("link")
def link(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """Print a link that signs a browser in to the page, once, as yourself; it is a secret."""
    settings = operator_config(config)

    async def ask() -> tuple[str, int]:
        async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
            return await client.create_web_link()

    url, good_for_s = answered(ask())
    if output is Format.JSON:
        emit_json({"url": url, "good_for_s": good_for_s})
        return
    OUT.print(url, markup=False)
    ERRORS.print(f"open it within {good_for_s} s; whoever opens it first is signed in as you")
