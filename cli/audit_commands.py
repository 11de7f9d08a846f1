"""`fedgate audit`: see what is on record, prove that it is whole, take it along."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.asking import answered
from cli.audit_client import AuditClient
from cli.config import operator_config
from cli.options import ConfigOption
from common.audit import Action
from common.console import OUT, Format, FormatOption, emit_json, emit_lines, working

if TYPE_CHECKING:
    from cli.record_proof import Proof, Witness
    from common.audit import Record
    from common.console import Work

app = typer.Typer(
    no_args_is_help=True,
    help="See and prove what is on record. Exit code 0: all is well; 1: it is not, and one "
    "sentence says why; 2: the command itself was wrong.",
)

KeyOption = Annotated[
    str, typer.Option(help="The orchestrator's public key, 64 hexadecimal digits, if you know it.")
]
FileOption = Annotated[
    Path | None, typer.Option("--file", help="An export, instead of the orchestrator's log.")
]
HeadsOption = Annotated[
    list[Path] | None,
    typer.Option("--heads", help="What a gateway saw: from `fedgate-gateway audit export`."),
]


@app.command("list")
def list_(
    after: Annotated[int, typer.Option(min=0, help="Only records after this one.")] = 0,
    action: Annotated[Action | None, typer.Option(help="Only what was done so.")] = None,
    actor: Annotated[str, typer.Option(help="Only what someone did whose name has this.")] = "",
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """List records, the oldest first: who did what, when, and what came of it.

    With `--format json` each record is an object on a line of its own.
    """
    records = [
        record
        for record in answered(_records(after, config), "reading the record")
        if actor in record.actor and action in {None, record.action}
    ]
    if output is Format.JSON:
        emit_lines(vars(record) for record in records)
        return
    for record in records:
        who = f"{record.sequence} {record.at} {record.actor}"
        OUT.print(f"{who} {record.action} {record.outcome}: {_facts(record)}", markup=False)


async def _records(after: int, config: Path | None) -> list[Record]:
    from common.audit import RecordBroken

    settings, records = operator_config(config), []
    async with AuditClient(*settings.way) as client:
        async for line in client.records(after):
            try:
                records.append(line.record)
            except ValueError as error:
                raise RecordBroken(line.sequence, "it is not a record any more") from error
    return records


def _facts(record: Record) -> str:
    return ", ".join(f"{name} {fact}" for name, fact in sorted(record.facts.items()))


@app.command("verify")
def verify(
    file: FileOption = None,
    heads: HeadsOption = None,
    key: KeyOption = "",
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Recompute the chain and check every checkpoint; the first bad record is named.

    With the heads that gateways keep, two stories told to two of them show.

    Examples:
        fedgate audit verify

        fedgate audit verify --file record.jsonl --heads north.jsonl
    """
    from cli.record_proof import Check, Witness, read_export, read_heads

    seen = tuple(witness for path in heads or () for witness in read_heads(path))
    if file is None:
        with working("reading the record and proving its chain") as work:
            proof = asyncio.run(_verify(seen, key, config, work))
    else:
        checkpoint, lines = read_export(file)
        check = Check((Witness(checkpoint), *seen), key)
        for line in lines:
            check.see(line)
        proof = check.finish()
    if output is Format.JSON:
        emit_json(proof)
    else:
        _print_proof(proof)


async def _verify(seen: tuple[Witness, ...], key: str, config: Path | None, work: Work) -> Proof:
    from cli.record_proof import Check, Witness

    settings = operator_config(config)
    async with AuditClient(*settings.way) as client:
        newest = await client.checkpoint()
        own = map(Witness, (newest, *await client.checkpoints()))
        check = Check((*own, *seen), key)
        async for line in client.records():
            check.see(line)
            work.reached(line.sequence, newest.sequence)
        return check.finish()


def _print_proof(proof: Proof) -> None:
    OUT.print(f"the chain is whole: record {proof.head.sequence}, {proof.head.hash}")
    OUT.print(f"{proof.checkpoints} checkpoints, the newest of record {proof.signed.sequence}")
    OUT.print(f"signed by {proof.public_key}")
    if proof.gateways:
        OUT.print(f"{proof.gateways} checkpoints that gateways keep are borne out")


@app.command("export")
def export(config: ConfigOption = None) -> None:
    """Print a checkpoint, then every record with its hash, one JSON object a line."""
    with working("reading the record", is_told=not OUT.is_terminal) as work:
        asyncio.run(_export(config, work))


async def _export(config: Path | None, work: Work) -> None:
    from cli.record_proof import Check

    settings, check = operator_config(config), Check(())
    async with AuditClient(*settings.way) as client:
        newest = await client.checkpoint()
        sys.stdout.write(newest.to_text().decode() + "\n")
        async for line in client.records():
            check.see(line)
            sys.stdout.write(line.to_text().decode() + "\n")
            work.reached(line.sequence, newest.sequence)
            if line.sequence == newest.sequence:
                return
