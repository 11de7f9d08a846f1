"""`fedgate model push`: a model in Hugging Face's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.model_commands import app
from cli.options import ModelOption
from common.console import OUT, Format, FormatOption, emit_json, working
from common.extras import ExtraMissing


@app.command("push")
def push(
    target: Annotated[Path, typer.Argument(help="The folder to write; nothing is uploaded.")],
    folder: ModelOption = Path("model"),
    name: Annotated[str | None, typer.Option(help="What the model is called there.")] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="By its name on the hub, such as apache-2.0.")
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a model to a folder as Hugging Face's tools and hub read it, proofs included.

    Example:
        fedgate model push hub/letters-ner --model model --license apache-2.0
    """
    try:
        from cli import model_push
    except ImportError as error:
        raise ExtraMissing("the hub's layout", "ner", error) from error
    called = name or target.name
    with working("proving the model and writing it"):
        card = model_push.push(folder, target, name=called, license_name=license_name)
    if output is Format.JSON:
        emit_json({"folder": target, "sha256": card.sha256})
        return
    OUT.print(f"wrote {target}: `hf upload REPO {target}` takes it to the hub", markup=False)
