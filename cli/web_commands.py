"""`fedgate web`: the way to the orchestrator's page."""

from __future__ import annotations

import typer

from cli.asking import asked
from cli.operator_client import OperatorClient
from cli.options import ConfigOption
from common.console import ERRORS, OUT, Format, FormatOption, emit_json

app = typer.Typer(no_args_is_help=True, help="The orchestrator's page.")


@app.command("link")
def link(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """Print a link that signs a browser in to the page, once, as yourself; it is a secret."""
    url, good_for_s = asked(OperatorClient, config, lambda client: client.create_web_link())
    if output is Format.JSON:
        emit_json({"url": url, "good_for_s": good_for_s})
        return
    OUT.print(url, markup=False)
    ERRORS.print(f"open it within {good_for_s} s; whoever opens it first is signed in as you")
