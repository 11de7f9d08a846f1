"""The Task protocol: what a user implements, in one file, to train a model of their own.

A task is Python installed beside the gateway and named in its configuration. The plan
names it by digest; nothing that comes over the wire is ever executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, Self, TypeAlias, runtime_checkable

from blake3 import blake3
from pydantic import BaseModel, ConfigDict, model_validator

from common.errors import RequestError
from common.plan import Unit

if TYPE_CHECKING:
    from torch import Tensor, nn

Batch: TypeAlias = "tuple[Tensor, ...]"  # the first dimension of every tensor is the examples


class DataConfig(BaseModel):
    """Which data a site trains on: the [data] table of `gateway.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    corpus: str | None = None  # a corpus by name; exactly one of corpus and path
    site: str | None = None  # whose rows; None: all rows
    path: Path | None = None  # the user's own file
    data_dir: Path | None = None  # where corpora that are not shipped lie
    split: Literal["train", "dev", "test"] = "train"  # which of its splits is read

    @model_validator(mode="after")
    def _names_one_source(self) -> Self:
        if (self.corpus is None) == (self.path is None):
            message = "name exactly one of `corpus` and `path`"
            raise ValueError(message)
        return self

    @property
    def source(self) -> str:
        """What an operator calls these data: the corpus' name or the file's path."""
        return self.corpus or str(self.path)


class UnitNotCarried(RequestError):
    """Data do not say of every record to which unit of the plan's kind it belongs."""

    field = "privacy.unit"

    def __init__(self, unit: Unit, *, where: str, mend: str) -> None:
        super().__init__(
            f"{where}: no {unit} is named, and the plan's unit is the {unit}; nothing was trained: "
            f"{mend}, or ask the operator for a plan of another unit"
        )


@dataclass(frozen=True)
class DataReport:
    """What a check of the data found, for the site's own operator only."""

    source: str  # the corpus' name or the file's path
    split: str
    sentences: int
    words: int
    overlong: int  # sentences longer than what the training loss reads
    per_label: Mapping[str, int] = field(default_factory=dict)  # entities
    per_site: Mapping[str, int] = field(default_factory=dict)  # sentences
    per_unit: Mapping[Unit, int] = field(default_factory=dict)  # units, of each that is carried
    shared: int = 0  # sentences of several persons: none of one person's unit has them


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be trained on, and why; never its text."""

    line: int  # from 1; 0: the source has no lines
    reason: str


@dataclass(frozen=True)
class Survey:
    """What all lines of the data are like, for the site's own operator only."""

    report: DataReport  # of the lines that are in order
    bad_lines: int = 0
    first_bad: Sequence[BadLine] = ()  # the first few


@dataclass(frozen=True)
class Scores:
    """How well a model finds entities; fractions between 0 and 1."""

    f1: float
    precision: float
    recall: float
    support: int  # entities in the data
    per_label: Mapping[str, float] = field(default_factory=dict)  # F1 of each label


class Dataset(Protocol):
    """The examples of one site and split, ready to train on."""

    def __len__(self) -> int:
        """Count the examples."""
        ...

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return the examples `rows`, padded to the longest of them; `rows` may be empty."""
        ...

    def units(self, unit: Unit) -> Sequence[Sequence[int]]:
        """Return the rows of every unit, in an order that the data alone decide; none is empty.

        No row is in two units: what happens to one leaves all others as they are. A row that
        belongs to several units is in none.

        Raises:
            UnitNotCarried: a row does not say to which unit it belongs; it is named.
        """
        ...

    def content_digests(self) -> Sequence[bytes]:
        """Return 32 bytes per example that name its raw content; they stay at the site."""
        ...


@runtime_checkable
class Task(Protocol):
    """A model, its loss, its data and its measure."""

    @property
    def name(self) -> str:
        """What the plan calls the task."""
        ...

    @property
    def version(self) -> str:
        """The version, for messages to people; the digest is what counts."""
        ...

    def digest(self) -> str:
        """Return the hexadecimal name of the code and the files that shape a result."""
        ...

    def build_model(self, labels: Sequence[str]) -> nn.Module:
        """Return the initial model: the same bits at every call.

        What trains has `requires_grad`; everything else is frozen and never travels.
        """
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return each example's loss, shape (batch,); no example sways another's."""
        ...

    def specimens(self, labels: Sequence[str]) -> Batch:
        """Return a few made-up examples of the model's input shape, the same at every call."""
        ...

    def check(self, data: DataConfig, labels: Sequence[str] | None) -> DataReport:
        """Read and check every line, without any training; raise what is wrong.

        `labels` are the plan's; None where no plan is known yet.
        """
        ...

    def read(self, data: DataConfig, labels: Sequence[str], cache: Path) -> Dataset:
        """Check the data, then make them ready; what is costly is kept in `cache`."""
        ...

    def score(self, model: nn.Module, dataset: Dataset) -> Scores:
        """Measure `model` on `dataset`."""
        ...

    def predict(
        self,
        model: nn.Module,
        sentences: Sequence[Sequence[str]],
        labels: Sequence[str],
        cache: Path | None = None,
    ) -> list[list[str]]:
        """Return one tag for each word of each sentence."""
        ...


@runtime_checkable
class Surveyor(Protocol):
    """A task that can go on at a bad line; one that cannot is checked up to its first."""

    def survey(self, data: DataConfig, labels: Sequence[str] | None) -> Survey:
        """Read every line, as `Task.check` does, and tell the bad ones from the others."""
        ...


def each_alone(count: int) -> Sequence[Sequence[int]]:
    """Return the units of `count` examples, each of which is its own."""
    return tuple((row,) for row in range(count))


def digest_files(paths: Sequence[Path], *extra: str) -> str:
    """Return one hexadecimal BLAKE3 name for files (name and content) and further strings."""
    hasher = blake3()
    parts = [part for path in paths for part in (path.name.encode(), path.read_bytes())]
    for part in (*parts, *(word.encode() for word in extra)):
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.hexdigest()
