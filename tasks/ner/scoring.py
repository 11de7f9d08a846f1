"""Entity-level precision, recall and F1, as seqeval reports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import log_softmax

from tasks.ner.tags import decode, tag_set
from tasks.task import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from tasks.ner.dataset import NerDataset

BATCH = 64  # sentences


@torch.no_grad()
def predict_tags(model: nn.Module, dataset: NerDataset) -> list[list[str]]:
    """Return the most probable legal tags of every sentence, in the dataset's order."""
    tags, predicted = tag_set(dataset.labels), []
    for start in range(0, len(dataset), BATCH):
        rows = range(start, min(start + BATCH, len(dataset)))
        scores = log_softmax(model(dataset.features(rows)), dim=-1).numpy()
        for row, score in zip(rows, scores, strict=True):
            predicted.append(decode(score[: len(dataset.sentences[row].tokens)], tags))
    return predicted


def entity_scores(right: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Scores:
    """Compare entities: one counts as found if its label and both its ends are right.

    Source:
        Tjong Kim Sang and De Meulder 2003 (CoNLL-2003), micro average over entities.
    """
    from seqeval.metrics import classification_report  # noqa: PLC0415 (brings scikit-learn)

    if not any(tag != "O" for tags in (*right, *predicted) for tag in tags):
        return Scores(f1=0.0, precision=0.0, recall=0.0, support=0)
    report = classification_report(
        [list(tags) for tags in right],
        [list(tags) for tags in predicted],
        output_dict=True,
        zero_division=0,
    )
    total = report["micro avg"]
    averages = {"micro avg", "macro avg", "weighted avg"}
    return Scores(
        f1=float(total["f1-score"]),
        precision=float(total["precision"]),
        recall=float(total["recall"]),
        support=int(total["support"]),
        per_label={k: float(v["f1-score"]) for k, v in report.items() if k not in averages},
    )
