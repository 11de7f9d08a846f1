"""`fedgate model`: export what a run published, score it, tag text with it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.config import operator_config
from cli.model_card import card_of, read_model, write_model
from cli.operator_client import OperatorClient
from common.console import ERRORS, OUT, Format, FormatOption, emit_json
from common.errors import ConflictError, RequestError
from common.ids import RunId
from common.protocol import RunState
from common.wire import plan_from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from cli.model_card import ModelCard
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
    """Write a completed run's model, and the card that says what it is."""
    card, path = asyncio.run(_export(RunId(run), out, config))
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
    card = card_of(status, plan_from_bytes(plan))
    return card, write_model(out, data, card)


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
    """Score a model on a public split: entity-level F1."""
    from tasks.loading import load_task
    from tasks.task import DataConfig

    task = load_task(reference)
    data = DataConfig(corpus=corpus, path=path, data_dir=data_dir, split=split)
    if watch is not None:
        asyncio.run(_watch(RunId(watch), task, data, cache, config))
        return
    model, card = _load(folder, task)
    scores = task.score(model, task.read(data, card.labels, cache))
    _print_scores(scores, data, output)


async def _watch(
    run_id: RunId, task: Task, data: DataConfig, cache: Path, config: Path | None
) -> None:
    from cli.evaluator import Evaluator

    settings = operator_config(config)
    async with OperatorClient(settings.address, settings.tls, settings.http2) as client:
        status = await Evaluator(client, task, data, cache).watch(run_id)
    ERRORS.print(f"run {run_id} {status.state}: scores are recorded", markup=False)


def _print_scores(scores: Scores, data: DataConfig, output: Format) -> None:
    if output is Format.JSON:
        emit_json({"corpus": data.source, "split": data.split, **vars(scores)})
        return
    OUT.print(
        f"F1 {100 * scores.f1:.2f} on {data.source}, {data.split} ({scores.support} entities)"
    )
    for label, value in sorted(scores.per_label.items()):
        OUT.print(f"  {label} {100 * value:.2f}", markup=False)


@app.command("predict")
def predict(
    folder: FolderOption = Path("model"),
    text: Annotated[
        typer.FileText, typer.Argument(help="One sentence a line, words apart by spaces.")
    ] = "-",  # type: ignore[assignment]
    reference: ReferenceOption = DEFAULT_TASK,
    output: FormatOption = Format.TEXT,
) -> None:
    """Tag text from a file or standard input."""
    from tasks.loading import load_task

    task = load_task(reference)
    model, card = _load(folder, task)
    sentences = [words for line in text if (words := line.split())]
    tags = task.predict(model, sentences, card.labels)
    if output is Format.JSON:
        pairs = zip(sentences, tags, strict=True)
        emit_json({"sentences": [{"words": w, "tags": t} for w, t in pairs]})
        return
    sys.stdout.writelines(_tagged(zip(sentences, tags, strict=True)))


def _tagged(sentences: Iterable[tuple[list[str], list[str]]]) -> Iterable[str]:
    """Yield lines in CoNLL form: a word and its tag, an empty line after each sentence."""
    for words, tags in sentences:
        yield from (f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
        yield "\n"


@app.command("fetch-corpus")
def fetch_corpus(
    name: Annotated[str, typer.Argument(help="A public corpus that has a pinned source: bc5cdr.")],
    folder: Annotated[Path, typer.Argument(help="Where it is written.")],
) -> None:
    """Download a public corpus from its pinned source and convert it."""
    from tasks.ner.download import fetch

    OUT.print(str(fetch(name, folder)), markup=False)


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
    found = compare(test, dict(each.split("=", 1) for each in site), tuple(label), cache)
    if output is Format.JSON:
        emit_json(found)
        return
    OUT.print(f"all data in one place: F1 {100 * found.pooled:.2f}")
    for name, f1 in found.alone.items():
        OUT.print(f"{name} alone: F1 {100 * f1:.2f}", markup=False)


def _load(folder: Path, task: Task) -> tuple[nn.Module, ModelCard]:
    from tasks.parameters import load_weights

    weights, card = read_model(folder)
    if (card.task, card.task_digest) != (task.name, task.digest()):
        raise AnotherTask(card, task)
    model = task.build_model(card.labels)
    load_weights(model, weights)
    return model, card
