"""What the federation is measured against: training without privacy, pooled and alone."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn
    from torch.optim.lr_scheduler import LRScheduler

    from tasks.task import Dataset, Task

EPOCHS = 6  # pooled; a site alone takes twice as many, it has less to read
BATCH = 64  # sentences
LEARNING_RATE = 0.15  # of Adam, falling linearly to zero
POOL = 8  # batches whose sentences are sorted by length together
_Rows: TypeAlias = "tuple[Dataset, list[int]]"  # a dataset and some rows of it


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
    generator = torch.Generator().manual_seed(seed)
    batches = list(chain.from_iterable(_batches(datasets, generator) for _ in range(epochs)))
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE
    )
    total = len(batches)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=total)
    for batch in batches:
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


def _batches(datasets: Sequence[Dataset], generator: torch.Generator) -> list[_Rows]:
    """Return one epoch of batches in random order, each of one site and of similar lengths.

    The datasets lie in order of length: a batch is a run of neighbours in a random sample, so
    that little of it is padding.
    """
    batches = []
    for dataset in datasets:
        order = torch.randperm(len(dataset), generator=generator)
        for sample in torch.split(order, BATCH * POOL):
            batches += [
                (dataset, rows.tolist()) for rows in torch.split(sample.sort().values, BATCH)
            ]
    shuffled = torch.randperm(len(batches), generator=generator)
    return [batches[place] for place in shuffled.tolist()]


def _step(task: Task, model: nn.Module, batch: _Rows, schedule: LRScheduler) -> None:
    dataset, rows = batch
    schedule.optimizer.zero_grad()
    task.loss(model, dataset.batch(rows)).mean().backward()  # type: ignore[no-untyped-call]
    schedule.optimizer.step()
    schedule.step()
