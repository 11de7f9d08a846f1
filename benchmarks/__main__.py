"""Measure, and compare with what was recorded last: `make bench`.

    python -m benchmarks [NAME …] [--record]

Each benchmark prints its JSON lines; a table at the end has each metric as it was recorded in
`benchmarks/results/`, as it is now, and now over recorded. `--record` puts what was measured in the
place of the record. Times hold for one machine; ratios to the raw sockets, or to a step without
privacy, hold on others too. What takes an hour or needs more installed is measured if it is named.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import records
from benchmarks.machine import ROOT
from benchmarks.records import RESULTS, Compared
from benchmarks.registry import BENCHMARKS, Benchmark

WIDTH = 140  # of the table, where it goes to no terminal


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Which; none: the ordinary.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Replace the record.")] = False,  # noqa: FBT002
    results: Annotated[Path, typer.Option(help="Where records are.")] = RESULTS,
) -> None:
    """Measure, print, compare."""
    compared, failed = [], []
    for benchmark in chosen(names):
        recorded = records.read(benchmark, results)
        lines, is_whole = measured(benchmark)
        if not is_whole:
            failed.append(benchmark.name)
        if recorded and records.machines(recorded) != records.machines(lines):
            print(f"{benchmark.name}: recorded on another machine or Python", file=sys.stderr)
        compared += records.compare(benchmark, recorded, lines)
        if record and is_whole:
            records.write(benchmark, lines, results)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table(compared))
    if failed:
        print(f"failed, not recorded: {', '.join(failed)}", file=sys.stderr)
        raise typer.Exit(1)


def chosen(names: list[str] | None) -> list[Benchmark]:
    """Return the named benchmarks, or those that need nothing more than time."""
    if not names:
        return [each for each in BENCHMARKS if not each.on_request]
    known = {each.name: each for each in BENCHMARKS}
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return [known[name] for name in names]


def measured(benchmark: Benchmark) -> tuple[list[dict[str, Any]], bool]:
    """Return what the commands of a benchmark print, and whether all of them succeeded."""
    lines: list[dict[str, Any]] = []
    is_whole = True
    for command in benchmark.commands:
        print(f"python -m {command}", file=sys.stderr, flush=True)
        module = [sys.executable, "-m", *command.split()]
        with subprocess.Popen(module, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:  # noqa: S603 - ours
            for line in process.stdout or ():
                print(line, end="", flush=True)
                lines.append(json.loads(line))
        is_whole &= process.returncode == 0
    return lines, is_whole


def table(compared: list[Compared]) -> Table:
    """Return all metrics beside what was recorded."""
    drawn = Table("benchmark", "configuration", "metric")
    for heading in ("recorded", "now", "ratio"):
        drawn.add_column(heading, justify="right")
    for each in compared:
        figures = map(_shown, (each.recorded, each.now, each.ratio))
        drawn.add_row(each.benchmark, each.configuration, each.metric, *figures)
    return drawn


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4g}"


if __name__ == "__main__":
    typer.run(main)
