"""`fedgate model evaluate`, `baselines` and `fetch-corpus`: models, and what they are scored on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.config import operator_config
from cli.model_commands import app
from cli.model_folder import read_model
from cli.operator_client import OperatorClient
from cli.options import ConfigOption, ModelOption
from common.console import ERRORS, OUT, Format, FormatOption, emit_json, working
from common.errors import RequestError
from common.ids import RunId

if TYPE_CHECKING:
    from torch import nn

    from cli.model_card import ModelCard
    from tasks.task import DataConfig, Scores, Task

ReferenceOption = Annotated[str, typer.Option("--task", help="The installed task.")]
CorpusOption = Annotated[str | None, typer.Option(help="A public corpus by name.")]
PathOption = Annotated[Path | None, typer.Option("--path", help="Or a .jsonl or .conll file.")]
DataDirOption = Annotated[
    Path | None, typer.Option(envvar="FEDGATE_DATA", help="Where corpora by name lie.")
]
CacheOption = Annotated[Path, typer.Option(help="Where computed features are kept.")]
DEFAULT_TASK = "tasks.ner:TASK"
DEFAULT_CACHE = Path("state/evaluator")


class AnotherTask(RequestError):
    """A model belongs to another task, or to another version of this one."""

    def __init__(self, card: ModelCard, task: Task) -> None:
        super().__init__(
            f"the model is of task {card.task} ({card.task_digest[:12]}), installed is "
            f"{task.name} ({task.digest()[:12]}): install the version it was trained with"
        )


@app.command("evaluate")
def evaluate(  # noqa: PLR0913 - options of a command line
    folder: ModelOption = Path("model"),
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
    async with OperatorClient(*settings.way) as client:
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
    from cli.baselines import compare, site_and_features
    from tasks.task import DataConfig

    sites = dict(map(site_and_features, site))
    test = DataConfig(corpus=corpus, data_dir=data_dir, split="test")
    with working("training on all data together, then on each site's alone"):
        found = compare(test, sites, tuple(label), cache)
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
