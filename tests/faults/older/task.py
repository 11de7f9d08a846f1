"""A whole task in one file, small enough for tests: which of two words a number stands for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.plan import Unit
from tasks.task import (
    Batch,
    DataConfig,
    DataReport,
    Dataset,
    Scores,
    UnitNotCarried,
    digest_files,
    each_alone,
)

WIDTH = 6


class Points:
    """Points on either side of a plane, drawn from a seed that is the site's name."""

    def __init__(self, site: str, split: str, size: int = 60) -> None:
        seed = int.from_bytes(blake3(f"{site}/{split}".encode()).digest()[:4], "little")
        generator = np.random.default_rng(seed)
        self.x = generator.normal(size=(size, WIDTH)).astype(np.float32)
        self.y = (self.x.sum(axis=1) > 0).astype(np.int64)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: Sequence[int]) -> Batch:
        chosen = np.asarray(rows, dtype=np.int64)
        return torch.from_numpy(self.x[chosen]), torch.from_numpy(self.y[chosen])

    def units(self, unit: Unit) -> Sequence[Sequence[int]]:
        if unit is not Unit.EXAMPLE:
            raise UnitNotCarried(unit, where="the points", mend="use data that have one")
        return each_alone(len(self))

    def content_digests(self) -> list[bytes]:
        return [blake3(row.tobytes()).digest() for row in self.x]


class TinyTask:
    """Logistic regression on `Points`."""

    name = "tiny"
    version = "1"

    def digest(self) -> str:
        return digest_files([Path(__file__)])

    def build_model(self, labels: Sequence[str]) -> nn.Module:
        model = nn.Linear(WIDTH, len(labels))
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        return model

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        x, y = batch
        return cross_entropy(model(x), y, reduction="none")

    def specimens(self, labels: Sequence[str]) -> Batch:
        return torch.eye(WIDTH)[:3], torch.tensor([0, 1, 0])

    def check(self, data: DataConfig, labels: Sequence[str] | None) -> DataReport:
        return DataReport(data.source, data.split, len(Points(data.site or "", data.split)), 0, 0)

    def read(self, data: DataConfig, labels: Sequence[str], cache: Path) -> Points:
        return Points(data.site or "", data.split)

    def score(self, model: nn.Module, dataset: Dataset) -> Scores:
        x, y = dataset.batch(range(len(dataset)))
        right = float((model(x).argmax(1) == y).float().mean())
        return Scores(right, right, right, len(dataset))

    def predict(
        self,
        model: nn.Module,
        sentences: Sequence[Sequence[str]],
        labels: Sequence[str],
        cache: Path | None = None,
    ) -> list[list[str]]:
        return [["O"] * len(words) for words in sentences]


TASK = TinyTask()
