"""What the federation is measured against: training without privacy, pooled and alone."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn
    from torch.optim.lr_scheduler import LRScheduler

    from tasks.task import Dataset, Task

EPOCHS = 8  # pooled; a site alone takes twice as many, it has less to read
BATCH = 64  # sentences
LEARNING_RATE = 0.15  # of Adam, falling linearly to zero
Example = tuple["Dataset", int]  # a dataset and a row of it


def pooled(
    task: Task,
    datasets: Sequence[Dataset],
    labels: Sequence[str],
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> nn.Module:
    """Return a model trained without privacy on all sites' data in one place.

    This is what a federation gives up by leaving data where they are. The same seed, data
    and number of threads give the same weights.
    """
    model = task.build_model(labels)
    examples = [(dataset, row) for dataset in datasets for row in range(len(dataset))]
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE
    )
    steps = epochs * -(-len(examples) // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    generator = torch.Generator().manual_seed(seed)
    for batch in chain.from_iterable(_batches(examples, generator) for _ in range(epochs)):
        _step(task, model, batch, schedule)
    return model


def alone(
    task: Task,
    datasets: Mapping[str, Dataset],
    labels: Sequence[str],
    *,
    epochs: int = 2 * EPOCHS,
    seed: int = 0,
) -> dict[str, nn.Module]:
    """Return one model per site, trained without privacy on its own data only.

    This is what a site has if it does not take part.
    """
    return {
        site: pooled(task, [dataset], labels, epochs=epochs, seed=seed)
        for site, dataset in datasets.items()
    }


def _batches(examples: Sequence[Example], generator: torch.Generator) -> Iterator[list[Example]]:
    order = torch.randperm(len(examples), generator=generator).tolist()
    for start in range(0, len(order), BATCH):
        yield [examples[place] for place in order[start : start + BATCH]]


def _step(task: Task, model: nn.Module, batch: Sequence[Example], schedule: LRScheduler) -> None:
    schedule.optimizer.zero_grad()
    for dataset in dict.fromkeys(dataset for dataset, _ in batch):
        rows = [row for owner, row in batch if owner is dataset]
        losses = task.loss(model, dataset.batch(rows))
        (losses.sum() / len(batch)).backward()  # type: ignore[no-untyped-call]
    schedule.optimizer.step()
    schedule.step()
