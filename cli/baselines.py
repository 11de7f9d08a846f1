"""What a federation is compared with: training without its privacy, and without the others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli.demo.result import Baselines
from common.errors import RequestError
from tasks.loading import load_task
from tasks.ner.baselines import alone, pooled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.task import DataConfig


class NotASiteAndItsFeatures(RequestError):
    """What is to name a site and its features does not."""

    field = "site"

    def __init__(self, text: str) -> None:
        super().__init__(
            f"{text!r} is not NAME=FOLDER: a site of the corpus, and where its features are kept: "
            "e.g. north=state/north/features"
        )


def site_and_features(text: str) -> tuple[str, Path]:
    """Return the name and the folder in `NAME=FOLDER`; raise NotASiteAndItsFeatures."""
    name, _, folder = text.partition("=")
    if not (name and folder):
        raise NotASiteAndItsFeatures(text)
    return name, Path(folder)


def compare(
    test: DataConfig, caches: Mapping[str, Path], labels: tuple[str, ...], cache: Path
) -> Baselines:
    """Return F1 on `test` of models trained without privacy.

    Args:
        test: the public split that is scored.
        caches: for each site, where its features are kept.
        labels: the entity types.
        cache: where the features of `test` are kept.
    """
    task = load_task("tasks.ner:TASK")
    scored = task.read(test, labels, cache)
    sites = {
        site: task.read(test.model_copy(update={"site": site, "split": "train"}), labels, folder)
        for site, folder in caches.items()
    }
    together = pooled(task, list(sites.values()), labels)
    apart = alone(task, sites, labels)
    return Baselines(
        pooled=task.score(together, scored).f1,
        alone={site: task.score(model, scored).f1 for site, model in apart.items()},
    )
