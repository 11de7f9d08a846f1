"""The `fedgate-gateway audit` commands: what this gateway has seen of the orchestrator's record.

Each imports what it needs when it is called, as those of the ledger.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from common.console import OUT, Format, FormatOption, emit_json, emit_lines, emit_table
from common.errors import RequestError
from gateway.options import ConfigOption, SeedOption, desk

if TYPE_CHECKING:
    from gateway.audit_heads import Seen

app = typer.Typer(
    no_args_is_help=True,
    help="See and prove where the orchestrator's audit log was seen to stand. Exit code 0: it only "
    "grew; 1: it told another story, and one sentence says which.",
)


class AnotherStory(RequestError):
    """The orchestrator's audit log was shown to this gateway in two ways."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(
            f"the checkpoint of record {seen.checkpoint.sequence} of {seen.checkpoint.at} tells "
            f"another story: {seen.problem}; `fedgate-gateway audit export` is the proof of it. "
            "Ask the orchestrator's operator, over another channel, before you "
            "`fedgate-gateway audit accept` it"
        )


class StoryForged(RequestError):
    """A checkpoint that is kept here is not what was signed."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(
            f"the checkpoint of record {seen.checkpoint.sequence} that is kept here is not what "
            "was signed: this gateway's ledger was changed. Find out by whom before it trains "
            "again; `fedgate-gateway ledger verify` says whether what was charged is whole"
        )


@app.command("show")
def show(
    config: ConfigOption = Path("gateway.toml"),
    seed: SeedOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show the checkpoints that were seen last, and all that did not go on from one before.

    With `--format json` each checkpoint is an object on a line of its own.
    """
    found = _seen(config, seed)
    if output is Format.JSON:
        emit_lines(found)
        return
    rows = [
        (s.checkpoint.sequence, s.checkpoint.hash[:12], s.checkpoint.at, _verdict(s)) for s in found
    ]
    emit_table("the orchestrator's audit log", ("record", "hash", "signed at", ""), rows)


@app.command("verify")
def verify(
    config: ConfigOption = Path("gateway.toml"),
    seed: SeedOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Say whether the log only grew, by all that this gateway has seen of it."""
    found = _seen(config, seed)
    for each in found:
        if not each.problem and not each.checkpoint.is_genuine():
            raise StoryForged(each)
        if not each.holds:
            raise AnotherStory(each)
    if output is Format.JSON:
        emit_json({"checkpoints": len(found), "newest": found[-1].checkpoint if found else None})
    elif not found:
        OUT.print("nothing has been seen of it yet")
    else:
        newest = found[-1].checkpoint
        OUT.print(f"it only grew: record {newest.sequence}, {newest.hash}, of {newest.at}")
        OUT.print(f"signed by {newest.public_key}")


@app.command("export")
def export(config: ConfigOption = Path("gateway.toml"), seed: SeedOption = None) -> None:
    """Print every checkpoint that is kept, one a line, for `fedgate audit verify --heads`."""
    for each in _seen(config, seed):
        sys.stdout.write(each.checkpoint.to_text().decode() + "\n")


@app.command("accept")
def accept(
    config: ConfigOption = Path("gateway.toml"),
    seed: SeedOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Go on from the last story that did not fit, as after the orchestrator's restore.

    The gateway must be stopped. What was seen stays on record here.
    """
    from gateway import audit_heads

    with desk(config, seed).ledger(exclusive=True) as ledger, ledger.transaction() as connection:
        accepted = audit_heads.accept(connection)
    if output is Format.JSON:
        emit_json({"accepted": accepted})
    elif accepted is None:
        OUT.print("there is nothing to accept")
    else:
        OUT.print(f"accepted: the log goes on from record {accepted.checkpoint.sequence}")


def _verdict(seen: Seen) -> str:
    if not seen.problem:
        return "goes on from the one before"
    return f"{'accepted' if seen.accepted else 'ANOTHER STORY'}: {seen.problem}"


def _seen(config: Path, seed: int | None) -> tuple[Seen, ...]:
    from gateway import audit_heads

    with desk(config, seed).ledger() as ledger, ledger.transaction() as connection:
        return audit_heads.heads(connection)
