"""`fedgate pki`: the federation's authority, and keys for development."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import pki
from common.console import OUT, Format, FormatOption, emit_json
from common.tls import Role

app = typer.Typer(
    no_args_is_help=True, help="The federation's authority, and keys for development."
)

FolderOption = Annotated[Path, typer.Option("--dir", help="Where the authority lies.")]


@app.command("init")
def init(
    folder: FolderOption = Path("pki"),
    federation: Annotated[str, typer.Option(help="The federation's name.")] = "fedgate",
    output: FormatOption = Format.TEXT,
) -> None:
    """Make a root, to be kept off every network, and the authority below it that signs members."""
    found = pki.init(folder, federation)
    root, below = folder / pki.ROOT, folder / pki.INTERMEDIATE
    if output is Format.JSON:
        made = {"authority": folder / "ca.pem", "root": root, "intermediate": below}
        emit_json({**made, "federation": federation, "fingerprint": found})
        return
    OUT.print(f"root of {federation!r} in {root}: take that folder off this machine")
    OUT.print(f"what signs members in {below}: for the orchestrator")
    OUT.print(f"the root's fingerprint, for whoever enrols: {found}")


@app.command("intermediate")
def intermediate(
    out: Annotated[Path, typer.Option(help="New folder for ca.pem, cert.pem and key.pem.")],
    root: Annotated[Path, typer.Option(help="Folder of the root's ca.key and ca.pem.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Make another authority below the root, before the one in use ends or after it was stolen."""
    pki.renew_intermediate(root, out)
    if output is Format.JSON:
        emit_json({"intermediate": out})
    else:
        OUT.print(f"what signs members in {out}: for the orchestrator")


@app.command("issue")
def issue(  # noqa: PLR0913 - options of a command line
    role: Annotated[Role, typer.Option(help="What the holder may be.")],
    name: Annotated[str, typer.Option(help="The holder's name.")],
    out: Annotated[Path, typer.Option(help="Folder for ca.pem, cert.pem and key.pem.")],
    folder: FolderOption = Path("pki"),
    host: Annotated[
        list[str] | None, typer.Option(help="A name or address the orchestrator is reached by.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="Days of validity.")] = pki.CERTIFICATE_DAYS,
    replace: Annotated[  # noqa: FBT002 - an option of a command line
        bool, typer.Option("--replace", help="Put it in place of the one in --out.")
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Make a key here, and a certificate for it: for an orchestrator, a first admin, development.

    Everybody else makes the key where it is used: `fedgate enroll create`.

    Example:
        fedgate pki issue --role operator --name me --out keys/me
    """
    identity = pki.issue(
        folder, role=role, name=name, hosts=host, out=out, days=days, replace=replace
    )
    if output is Format.JSON:
        emit_json({"identity": identity.uri, "folder": out, "days": days})
    else:
        OUT.print(f"{identity.uri}: certificate and key in {out}, valid {days} days")
