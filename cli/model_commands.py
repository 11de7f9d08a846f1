"""`fedgate model`: export what a run published, score it, tag text with it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.asking import answered
from cli.audit_client import AuditClient
from cli.config import operator_config
from cli.evidence import Evidence
from cli.model_card import card_of, card_without_lineage, scores_of
from cli.model_folder import ModelUnreadable, prove_folder, read_model, write_model
from cli.operator_client import OperatorClient
from common.console import ERRORS, OUT, Format, FormatOption, emit_json, working
from common.errors import ConflictError, RequestError
from common.ids import RunId
from common.lineage import LineageBroken
from common.protocol import RunState

if TYPE_CHECKING:
    from torch import nn

    from cli.model_card import ModelCard
    from cli.model_proof import ModelProof
    from common.console import Work
    from common.protocol import RunStatus
    from tasks.task import DataConfig, Scores, Task

app = typer.Typer(no_args_is_help=True, help="Export, score and use the model of a run.")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="How to reach the orchestrator, TOML.")
]
ReferenceOption = Annotated[str, typer.Option("--task", help="The installed task.")]
CorpusOption = Annotated[str | None, typer.Option(help="A public corpus by name.")]
PathOption = Annotated[Path | None, typer.Option("--path", help="Or a .jsonl or .conll file.")]
DataDirOption = Annotated[
    Path | None, typer.Option(envvar="FEDGATE_DATA", help="Where corpora by name lie.")
]
CacheOption = Annotated[Path, typer.Option(help="Where computed features are kept.")]
FolderOption = Annotated[Path, typer.Option("--model", help="Folder that `model export` wrote.")]
DEFAULT_TASK = "tasks.ner:TASK"
DEFAULT_CACHE = Path("state/evaluator")


class RunNotCompleted(ConflictError):
    """A run has no model yet, or never will have."""

    def __init__(self, status: RunStatus) -> None:
        super().__init__(
            f"run {status.run_id} is {status.state} and has published no model: "
            "wait for it with `fedgate run watch`"
        )


class AnotherTask(RequestError):
    """A model belongs to another task, or to another version of this one."""

    def __init__(self, card: ModelCard, task: Task) -> None:
        super().__init__(
            f"the model is of task {card.task} ({card.task_digest[:12]}), installed is "
            f"{task.name} ({task.digest()[:12]}): install the version it was trained with"
        )


@app.command("export")
def export(
    run: Annotated[str, typer.Argument(help="The run's name.")],
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
    async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
        status, plan = await client.run(run_id)
        if status.state is not RunState.COMPLETED or status.model is None:
            raise RunNotCompleted(status)
        data = await client.fetch_weights(status.model)
    async with AuditClient(settings.address, settings.tls, settings.http2) as auditor:
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
def card(folder: FolderOption = Path("model"), output: FormatOption = Format.TEXT) -> None:
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
    where = (settings.address, settings.tls, settings.http2)
    async with OperatorClient(*where) as client, AuditClient(*where) as auditor:
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
            else ("stated: its updates were not kept; signature, chain and digests hold")
        )
        OUT.print(f"round {each.round}, {each.updates} updates: {how}")
    if proof.model is not None:
        OUT.print(f"the model {proof.model} (SHA-256 {proof.model_sha256}) follows from them")
    OUT.print(f"signed by {proof.public_key}")
    OUT.print(_ordered_by(proof.plan_signed_by))


def _ordered_by(key: str | None) -> str:
    return f"the plan was ordered by {key}" if key else "nobody has signed the plan"


@app.command("evaluate")
def evaluate(  # noqa: PLR0913 - options of a command line
    folder: FolderOption = Path("model"),
    watch: Annotated[
        str | None, typer.Option(help="Score this run while it goes on, and report the scores.")
    ] = None,
    corpus: CorpusOption = None,
    path: PathOption = None,
    data_dir: DataDirOption = None,
    split: Annotated[Literal["dev", "test"], typer.Option(help="Which split.")] = "test",
    cache: CacheOption = DEFAULT_CACHE,
    reference: ReferenceOption = DEFAULT_TASK,
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Score a model on a public split: entity-level F1.

    Example:
        fedgate model evaluate --model model --corpus letters
    """
    from tasks.loading import load_task
    from tasks.task import DataConfig

    task = load_task(reference)
    data = DataConfig(corpus=corpus, path=path, data_dir=data_dir, split=split)
    if watch is not None:
        asyncio.run(_watch(RunId(watch), (task, data, cache), config, output))
        return
    model, card = load_model(folder, task)
    with working(f"scoring on {data.source}, {data.split}"):
        scores = task.score(model, task.read(data, card.labels, cache))
    _print_scores(scores, data, output)


async def _watch(
    run_id: RunId,
    scoring: tuple[Task, DataConfig, Path],
    config: Path | None,
    output: Format,
) -> None:
    from cli.evaluator import Evaluator

    settings = operator_config(config)
    async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
        status = await Evaluator(client, *scoring).watch(run_id)
    if output is Format.JSON:
        emit_json(status)
    else:
        ERRORS.print(f"run {run_id} {status.state}: scores are recorded", markup=False)


def _print_scores(scores: Scores, data: DataConfig, output: Format) -> None:
    if output is Format.JSON:
        emit_json({"corpus": data.source, "split": data.split, **vars(scores)})
        return
    OUT.print(f"F1 {100 * scores.f1:.2f} on {data.source}, {data.split} ({scores.support} in all)")
    for label, value in sorted(scores.per_label.items()):
        OUT.print(f"  {label} {100 * value:.2f}", markup=False)


@app.command("fetch-corpus")
def fetch_corpus(
    name: Annotated[str, typer.Argument(help="A public corpus that has a pinned source: bc5cdr.")],
    folder: Annotated[Path, typer.Argument(help="Where it is written.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Download a public corpus from its pinned source and convert it."""
    from tasks.ner.download import fetch

    with working(f"fetching {name}") as work:
        path = fetch(name, folder, reached=work.reached)
    if output is Format.JSON:
        emit_json({"corpus": name, "file": path})
    else:
        OUT.print(str(path), markup=False)


@app.command("baselines")
def baselines(
    site: Annotated[
        list[str], typer.Option(help="A site and where its features are kept: NAME=FOLDER.")
    ],
    label: Annotated[list[str], typer.Option(help="An entity type.")],
    corpus: CorpusOption = None,
    data_dir: DataDirOption = None,
    cache: CacheOption = DEFAULT_CACHE,
    output: FormatOption = Format.TEXT,
) -> None:
    """Train without privacy, on all sites' data in one place and on each site's alone.

    This needs what a federation does not have: every site's data on one machine.
    """
    from cli.baselines import compare
    from tasks.task import DataConfig

    test = DataConfig(corpus=corpus, data_dir=data_dir, split="test")
    with working("training on all data together, then on each site's alone"):
        found = compare(test, dict(each.split("=", 1) for each in site), tuple(label), cache)
    if output is Format.JSON:
        emit_json(found)
        return
    OUT.print(f"all data in one place: F1 {100 * found.pooled:.2f}")
    for name, f1 in found.alone.items():
        OUT.print(f"{name} alone: F1 {100 * f1:.2f}", markup=False)


def load_model(folder: Path, task: Task) -> tuple[nn.Module, ModelCard]:
    """Return the model in a folder and its card; raise AnotherTask unless it is of `task`."""
    from tasks.parameters import load_weights

    weights, card = read_model(folder)
    if (card.task, card.task_digest) != (task.name, task.digest()):
        raise AnotherTask(card, task)
    model = task.build_model(card.labels)
    load_weights(model, weights)
    return model, card
