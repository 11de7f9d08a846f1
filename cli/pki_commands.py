"""`fedgate pki`: keys and certificates for development."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import pki
from common.console import OUT, Format, FormatOption, emit_json
from common.tls import Role

app = typer.Typer(no_args_is_help=True, help="Keys and certificates for development.")

FolderOption = Annotated[Path, typer.Option("--dir", help="Where the authority lies.")]


@app.command("init")
def init(
    folder: FolderOption = Path("pki"),
    federation: Annotated[str, typer.Option(help="The federation's name.")] = "fedgate",
    output: FormatOption = Format.TEXT,
) -> None:
    """Make a certificate authority."""
    pki.init(folder, federation)
    if output is Format.JSON:
        emit_json({"authority": folder / "ca.pem", "federation": federation})
    else:
        OUT.print(f"authority of {federation!r} in {folder}: keep {folder / 'ca.key'} to yourself")


@app.command("issue")
def issue(  # noqa: PLR0913 - options of a command line
    role: Annotated[Role, typer.Option(help="What the holder may be.")],
    name: Annotated[str, typer.Option(help="The holder's name.")],
    out: Annotated[Path, typer.Option(help="Folder for ca.pem, cert.pem and key.pem.")],
    folder: FolderOption = Path("pki"),
    host: Annotated[
        list[str] | None, typer.Option(help="A name or address the orchestrator is reached by.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days of validity.")] = 90,
    output: FormatOption = Format.TEXT,
) -> None:
    """Make a key, and a certificate for it that names its holder."""
    identity = pki.issue(folder, role=role, name=name, hosts=host, out=out, days=days)
    if output is Format.JSON:
        emit_json({"identity": identity.uri, "folder": out, "days": days})
    else:
        OUT.print(f"{identity.uri}: certificate and key in {out}, valid {days} days")
