"""`fedgate model`: export what a run published, and prove what it is."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.asking import answered
from cli.audit_client import AuditClient
from cli.config import operator_config
from cli.evidence import Evidence
from cli.model_card import card_of, card_without_lineage, scores_of
from cli.model_folder import ModelUnreadable, prove_folder, write_model
from cli.operator_client import OperatorClient
from cli.options import ConfigOption, ModelOption, RunArgument
from common.console import OUT, Format, FormatOption, emit_json, working
from common.errors import ConflictError
from common.ids import RunId
from common.lineage import LineageBroken
from common.protocol import RunState

if TYPE_CHECKING:
    from cli.model_card import ModelCard
    from cli.model_proof import ModelProof
    from common.console import Work
    from common.protocol import RunStatus

app = typer.Typer(no_args_is_help=True, help="Export, score and use the model of a run.")


class RunNotCompleted(ConflictError):
    """A run has no model yet, or never will have."""

    def __init__(self, status: RunStatus) -> None:
        super().__init__(
            f"run {status.run_id} is {status.state} and has published no model: "
            "wait for it with `fedgate run watch`"
        )


@app.command("export")
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder for the model and its card.")],
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a completed run's model, and the card that says what it is.

    Example:
        fedgate model export first --out model
    """
    card, path = answered(_export(RunId(run), out, config), "fetching the model and its lineage")
    if output is Format.JSON:
        emit_json({"model_path": path, **card.model_dump(mode="json", exclude={"layout"})})
    else:
        OUT.print(f"{path} (SHA-256 {card.sha256})\n{card.statement}", markup=False)


async def _export(run_id: RunId, out: Path, config: Path | None) -> tuple[ModelCard, Path]:
    settings = operator_config(config)
    async with OperatorClient(*settings.way) as client:
        status, plan = await client.run(run_id)
        if status.state is not RunState.COMPLETED or status.model is None:
            raise RunNotCompleted(status)
        data = await client.fetch_weights(status.model)
    async with AuditClient(*settings.way) as auditor:
        signed = await auditor.lineage(run_id)
    evidence = Evidence(settings.tls.federation(), run_id, plan, status.plan_signature, signed)
    if evidence.is_from_the_start:
        card = card_of(evidence, scores_of(status))
        if card.blake3 != status.model:
            raise LineageBroken("the statement of the model", f"it is not of {status.model}")
    else:
        card = card_without_lineage(status, plan)
    return card, write_model(out, data, card, evidence)


@app.command("card")
def card(folder: ModelOption = Path("model"), output: FormatOption = Format.TEXT) -> None:
    """Print an exported model's card: Markdown, or JSON; its lineage is checked first."""
    from cli.model_page import page_of

    with working("proving the model's lineage"):
        found = prove_folder(folder)
    if output is Format.JSON:
        emit_json(found.model_dump(mode="json"))
    else:
        sys.stdout.write(page_of(found))


@app.command("verify")
def verify(
    run: Annotated[str | None, typer.Argument(help="The run, at its orchestrator.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--model", help="Folder that `model export` wrote.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The orchestrator's public key.")] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Prove what a model was made of: signatures, chain, digests, and each round made again.

    Without a run, an exported folder is checked by itself. The first thing that is not as it was
    signed is named.
    """
    if run is None:
        with working("proving the model's lineage"):
            card = prove_folder(folder or Path("model"), key)
        _print_folder(card, output)
        return
    with working("making each round again") as work:
        proof = asyncio.run(_prove(RunId(run), key, config, work))
    if folder is not None and prove_folder(folder, key).sha256 != proof.model_sha256:
        raise ModelUnreadable(folder, f"its model is not that of run {run}")
    if output is Format.JSON:
        emit_json(proof)
    else:
        _print_proof(proof)


async def _prove(run_id: RunId, key: str | None, config: Path | None, work: Work) -> ModelProof:
    from cli.model_proof import Story, prove

    settings = operator_config(config)
    async with OperatorClient(*settings.way) as client, AuditClient(*settings.way) as auditor:
        status, plan = await client.run(run_id)
        signed = await auditor.lineage(run_id)
        federation, ordered = settings.tls.federation(), status.plan_signature
        evidence = Evidence(federation, run_id, plan, ordered, signed)
        story = Story(evidence, status.published_round, status.model)
        return await prove(story, client.fetch_weights, key, work.reached)


def _print_folder(card: ModelCard, output: Format) -> None:
    lineage = card.lineage
    if output is Format.JSON:
        said = {"model_sha256": card.sha256, "plan_signed_by": card.plan_signed_by}
        emit_json({"run": card.run, **said, "lineage": lineage})
    elif lineage is not None:
        OUT.print(f"the model is the one that {lineage.public_key} has signed")
        OUT.print(f"{lineage.statements} statements lead to it; they were not replayed from files")
        OUT.print(_ordered_by(card.plan_signed_by))


def _print_proof(proof: ModelProof) -> None:
    for each in proof.rounds:
        how = (
            "made again, the same bit for bit"
            if each.how == "replayed"
            else "stated: its updates were not kept; signature, chain and digests hold"
        )
        OUT.print(f"round {each.round}, {each.updates} updates: {how}")
    if proof.model is not None:
        OUT.print(f"the model {proof.model} (SHA-256 {proof.model_sha256}) follows from them")
    OUT.print(f"signed by {proof.public_key}")
    OUT.print(_ordered_by(proof.plan_signed_by))


def _ordered_by(key: str | None) -> str:
    return f"the plan was ordered by {key}" if key else "nobody has signed the plan"
