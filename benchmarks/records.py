"""What benchmarks have printed: kept as JSON lines, and compared with what was kept before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.registry import Benchmark

RESULTS = Path(__file__).parent / "results"
MACHINE = ("cores", "processor", "python")


@dataclass(frozen=True)
class Compared:
    """One metric of one configuration, as it was recorded and as it is now."""

    benchmark: str
    configuration: str
    metric: str
    recorded: float | None  # None: not recorded
    now: float | None  # None: not measured now

    @property
    def ratio(self) -> float | None:
        """Now over what was recorded; None where one is missing or nothing was recorded but 0."""
        if self.now is None or not self.recorded:
            return None
        return self.now / self.recorded


def read(benchmark: Benchmark, folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Return the recorded lines; none if none were."""
    path = _path(benchmark, folder)
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(benchmark: Benchmark, lines: Sequence[Mapping[str, Any]], folder: Path = RESULTS) -> None:
    """Record `lines` in place of what was recorded before."""
    folder.mkdir(parents=True, exist_ok=True)
    _path(benchmark, folder).write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def compare(
    benchmark: Benchmark, recorded: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]
) -> list[Compared]:
    """Return each metric of each configuration, those first that were measured now."""
    old = {_configuration(benchmark, line): line for line in recorded}
    new = {_configuration(benchmark, line): line for line in now}
    found = [
        Compared(
            benchmark.name,
            configuration,
            metric,
            recorded=_figure(old.get(configuration, {}), metric),
            now=_figure(new.get(configuration, {}), metric),
        )
        for configuration in new | old
        for metric in benchmark.metrics
    ]
    return [each for each in found if each.recorded is not None or each.now is not None]


def machines(lines: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    """Return on what the lines were measured."""
    return {tuple(line.get(field) for field in MACHINE) for line in lines}


def _path(benchmark: Benchmark, folder: Path) -> Path:
    return folder / f"{benchmark.name}.jsonl"


def _configuration(benchmark: Benchmark, line: Mapping[str, Any]) -> str:
    return " ".join(f"{field}={line[field]}" for field in benchmark.of if field in line)


def _figure(line: Mapping[str, Any], metric: str) -> float | None:
    """Return a metric; of an interval [value, low, high] the value."""
    figure = line.get(metric)
    if isinstance(figure, list):
        figure = figure[0]
    return None if figure is None else float(figure)
