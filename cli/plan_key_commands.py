"""`fedgate plan keygen`: the key that plans are signed with. It needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.console import ERRORS, OUT, Format, FormatOption, emit_json

app = typer.Typer(no_args_is_help=True, help="Sign plans, and see what one costs.")


@app.callback()
def plan() -> None:
    """Sign plans, and see what one costs."""


@app.command("keygen")
def keygen(
    name: Annotated[str, typer.Option(help="Whose key it is, as gateways will call it.")],
    out: Annotated[Path, typer.Option(help="A folder for plan-signing.key and .pub.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Make the key that `fedgate run start` signs plans with; print its public line.

    The line goes into the trust file of each gateway that is to obey it. The private key stays in
    its folder: whoever reads it can have those gateways train.
    """
    from cli.plan_keys import KEY_FILE, make_signing_key

    line, key = make_signing_key(out, name), out / KEY_FILE
    if output is Format.JSON:
        emit_json({"signing_key": key, "trust_line": line})
        return
    ERRORS.print(f"made {key}; put this line into each gateway's trust file:")
    OUT.print(line, markup=False, soft_wrap=True, highlight=False)
