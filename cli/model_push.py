"""A model's folder in the layout that Hugging Face's tools and hub read.

Beside what `model export` wrote, which still proves the model, there is a README with metadata and
a configuration that names task and labels. Weights stay as they are, so their digests do, too.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCardData

from cli.model_folder import CARD_FILE, LINEAGE_FILE, PLAN_FILE, WEIGHTS_FILE, read_model
from cli.model_page import page_of
from common.errors import UnavailableError
from common.key_files import refuse_present
from common.version import SOFTWARE_VERSION
from tasks.ner.tags import tag_set

if TYPE_CHECKING:
    from pathlib import Path

    from cli.model_card import ModelCard

PAGE_FILE, CONFIG_FILE = "README.md", "config.json"
PIPELINES = {"ner": "token-classification"}  # of the tasks that have one there


class PushFailed(UnavailableError):
    """A folder cannot be written."""

    def __init__(self, folder: Path, error: OSError) -> None:
        super().__init__(
            f"{folder} cannot be written ({error.strerror}): make room or name another folder"
        )


def push(source: Path, target: Path, *, name: str, license_name: str | None = None) -> ModelCard:
    """Write the model in `source` to `target`, and return its card.

    Raises:
        ModelUnreadable: there is none in `source`, or its files do not fit together.
        AlreadyThere: `target` has a model.
        PushFailed: it cannot be written.
    """
    _, card = read_model(source)
    refuse_present(target, (PAGE_FILE, CONFIG_FILE, WEIGHTS_FILE))
    page = f"---\n{_metadata(card, name, license_name)}\n---\n\n{page_of(card)}\n{_use(name)}"
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in (WEIGHTS_FILE, CARD_FILE, PLAN_FILE, LINEAGE_FILE):
            if (source / file).exists():
                shutil.copyfile(source / file, target / file)
        (target / CONFIG_FILE).write_text(json.dumps(_config(card), indent=2) + "\n")
        (target / PAGE_FILE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise PushFailed(target, error) from error
    return card


def _metadata(card: ModelCard, name: str, license_name: str | None) -> str:
    pipeline = PIPELINES.get(card.task)
    results = [
        EvalResult(
            task_type=pipeline or card.task,
            dataset_type=f"fedgate-{split}",
            dataset_name=f"the public {split} split of the run",
            metric_type="f1",
            metric_value=f1,
        )
        for split, f1 in sorted(card.scores.items())
    ]
    private = ["differential-privacy"] if card.private else []
    data = ModelCardData(
        license=license_name,
        library_name="fedgate",
        pipeline_tag=pipeline,
        tags=["federated-learning", *private],
        model_name=name,
        eval_results=results or None,
    )
    return data.to_yaml()


def _config(card: ModelCard) -> dict[str, object]:
    """Return what names the task, its labels and whoever wrote this."""
    tags = tag_set(card.labels) if card.task in PIPELINES else card.labels
    return {
        "model_type": f"fedgate-{card.task}",
        "task": {"name": card.task, "digest": card.task_digest},
        "id2label": dict(enumerate(tags)),
        "label2id": {tag: number for number, tag in enumerate(tags)},
        "fedgate_version": SOFTWARE_VERSION,
    }


def _use(name: str) -> str:
    return (
        "\n## Use\n\n"
        "Its parameters belong on top of the task's frozen part, which `pip install fedgate` "
        "brings:\n\n"
        f'    fedgate model predict --model {name} --text "He takes warfarin ."\n'
        f"    fedgate model verify --model {name}   # proves it, by the lineage beside it\n"
    )
