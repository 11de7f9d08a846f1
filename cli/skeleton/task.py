"""The task `skeleton`: which of the plan's labels a row of numbers has.

All that is yours is in this file: the columns, the model, its loss, and how files are read. A
gateway and a plan name it as `skeleton.py:TASK`; each site has to have the same file. Data are
CSV files with a heading: the columns of FEATURES, `label`, and where one person has several rows,
`person`.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from blake3 import blake3
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from common.errors import RequestError
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

# The columns that are read, each with its usual range. Take ranges from what is publicly known,
# never from the rows: what is computed from private rows without noise is not private.
FEATURES = {
    "age": (18.0, 90.0),
    "height_cm": (140.0, 210.0),
    "weight_kg": (40.0, 140.0),
}


class Model(nn.Module):
    """From features to a score for each label, by one hidden layer."""

    def __init__(self, features: int, labels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(features, 16), nn.Tanh(), nn.Linear(16, labels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the labels' scores, shape (rows, labels)."""
        scores: Tensor = self.layers(x)
        return scores


def losses(scores: Tensor, right: Tensor) -> Tensor:
    """Return the loss of each row, shape (rows,): never their mean, which would mix rows."""
    return cross_entropy(scores, right, reduction="none")


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    features: tuple[float, ...]
    label: str
    person: str | None  # whose it is; None: the file does not say
    line: int


class Rows:
    """The rows of one site, ready to train on."""

    def __init__(self, rows: Sequence[Row], labels: Sequence[str], source: str) -> None:
        self._rows = rows
        self._source = source
        lowest, highest = torch.tensor(list(FEATURES.values())).T
        x = torch.tensor([row.features for row in rows])
        self.x = (2 * (x - lowest) / (highest - lowest) - 1).clamp(-1, 1)
        self.y = torch.tensor([labels.index(row.label) for row in rows])

    def __len__(self) -> int:
        """Count the rows."""
        return len(self._rows)

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return the features, shape (rows, features), and the labels' places, shape (rows,)."""
        chosen = torch.tensor(rows, dtype=torch.int64)
        return self.x[chosen], self.y[chosen]

    def units(self, unit: Unit) -> Sequence[Sequence[int]]:
        """Return which rows are protected together: each alone, or all of one person."""
        if unit is Unit.EXAMPLE:
            return each_alone(len(self))
        of_person = defaultdict[str, list[int]](list)
        for place, row in enumerate(self._rows):
            if unit is not Unit.PERSON or row.person is None:
                where = f"{self._source}, line {row.line}"
                raise UnitNotCarried(unit, where=where, mend="add a column `person`")
            of_person[row.person].append(place)
        return tuple(of_person[person] for person in sorted(of_person))

    def content_digests(self) -> Sequence[bytes]:
        """Return 32 bytes that name each row; the ledger knows by them what was trained on."""
        return [blake3(repr((row.features, row.label)).encode()).digest() for row in self._rows]


class BrokenData(RequestError):
    """A file cannot be read as rows of this task; the message shows the place, never the value."""

    field = "data.path"

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}; nothing was trained")


@dataclass(frozen=True)
class SkeletonTask:
    """What Fedgate asks of a task: see `tasks.task.Task`."""

    name: str = "skeleton"
    version: str = "1"

    def digest(self) -> str:
        """Return the name of this file's content: all sites must have the same."""
        return digest_files([Path(__file__)])

    def build_model(self, labels: Sequence[str]) -> nn.Module:
        """Return the initial model, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(0)
            return Model(len(FEATURES), len(labels))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each row, shape (rows,)."""
        x, y = batch
        return losses(model(x), y)

    def specimens(self, labels: Sequence[str]) -> Batch:
        """Return three made-up rows; a gateway tries the model on them before it reads data."""
        x = torch.linspace(-1, 1, 3 * len(FEATURES)).reshape(3, -1)
        return x, torch.tensor([0, len(labels) - 1, 0])

    def check(self, data: DataConfig, labels: Sequence[str] | None) -> DataReport:
        """Read and check every line, and count."""
        rows = read_rows(data, labels)
        of_person = {row.person for row in rows}
        units = {Unit.EXAMPLE: len(rows)}
        if None not in of_person:
            units[Unit.PERSON] = len(of_person)
        per_label = dict(Counter(row.label for row in rows))
        return DataReport(
            data.source, data.split, len(rows), 0, 0, per_label=per_label, per_unit=units
        )

    def read(self, data: DataConfig, labels: Sequence[str], cache: Path) -> Rows:
        """Return the rows; put into the folder `cache` what is costly to compute from them."""
        return Rows(read_rows(data, labels), labels, data.source)

    def score(self, model: nn.Module, dataset: Dataset) -> Scores:
        """Return precision, recall and F1, each the mean over the labels."""
        x, right = dataset.batch(range(len(dataset)))
        with torch.no_grad():
            scores = model(x)
        counts = torch.zeros(scores.shape[1], scores.shape[1])
        counts.index_put_((right, scores.argmax(1)), torch.ones(len(right)), accumulate=True)
        precision = counts.diag() / counts.sum(0).clamp(min=1)
        recall = counts.diag() / counts.sum(1).clamp(min=1)
        f1 = 2 * counts.diag() / (counts.sum(0) + counts.sum(1)).clamp(min=1)
        return Scores(float(f1.mean()), float(precision.mean()), float(recall.mean()), len(right))

    def predict(
        self,
        model: nn.Module,
        sentences: Sequence[Sequence[str]],
        labels: Sequence[str],
        cache: Path | None = None,
    ) -> list[list[str]]:
        """Tag words: rows of numbers have none."""
        raise BrokenData(f"task {self.name}", "reads rows of numbers, it tags no text")


def read_rows(data: DataConfig, labels: Sequence[str] | None) -> list[Row]:
    """Return the rows of a file; raise BrokenData, which names the first line that is wrong."""
    if data.path is None:
        raise BrokenData(data.source, "is no file; name one as `path` in [data]")
    try:
        with data.path.open(encoding="utf-8", newline="") as file:
            table = csv.DictReader(file, restval="")
            _check_heading(table.fieldnames or (), data.source)
            rows = [_row(fields, data.source, table.line_num) for fields in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BrokenData(data.source, str(error)) from error
    if not rows:
        raise BrokenData(data.source, "holds no rows")
    for row in rows:
        if labels is not None and row.label not in labels:
            where = f"{data.source}, line {row.line}"
            raise BrokenData(where, f"its label is none of {', '.join(labels)}")
    return rows


def _check_heading(columns: Sequence[str], source: str) -> None:
    missing = [name for name in (*FEATURES, "label") if name not in columns]
    if missing:
        raise BrokenData(source, f"its first line names no column {', '.join(missing)}")


def _row(fields: dict[str, str], source: str, line: int) -> Row:
    where, numbers = f"{source}, line {line}", []
    if None in fields:
        raise BrokenData(where, "more values than columns")
    for name in FEATURES:
        try:
            number = float(fields[name])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BrokenData(where, f"{name} is no number")
        numbers.append(number)
    return Row(tuple(numbers), fields["label"], fields.get("person") or None, line)


TASK = SkeletonTask()
