"""What a private step costs, in time, memory and error.

    python -m benchmarks.private_step [--models bilstm,cnn] [--batch 16,64] [--methods fedgate]
    python -m benchmarks.private_step --noise

One JSON line per model, batch and method; it needs `fedgate[gateway,bench]`. `ms_min` and
`ms_median` are of steps that all methods took in turn, `ratio_nonprivate` is the ratio of minima.
`peak_mib` is the resident memory of a process that only took a few steps. `max_abs_error` is of
the clipped sum, over the clipping norm, against the same sum in float64; `norm_raised_by` is by
how much, relative, a norm was taken to be above the true one. `error` says why there are none.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from benchmarks.machine import described
from benchmarks.private_step.measure import Group, measured
from benchmarks.private_step.methods import METHODS
from benchmarks.private_step.models import MODELS
from benchmarks.private_step.noise import noise_costs


def main(
    models: Annotated[str, typer.Option(help="Which models.")] = ",".join(MODELS),
    batch: Annotated[str, typer.Option(help="How many sentences a step takes.")] = "16,64,256",
    methods: Annotated[str, typer.Option(help="Which methods.")] = ",".join(METHODS),
    seconds: Annotated[float, typer.Option(help="At least so long for a model and batch.")] = 30.0,
    threads: Annotated[int, typer.Option(help="Of torch.")] = 2,
    noise: Annotated[bool, typer.Option("--noise", help="Only noise and update.")] = False,  # noqa: FBT002
) -> None:
    """Measure and print."""
    if noise:
        for line in noise_costs(threads):
            show("private_step.noise", line, threads)
        return
    chosen = _known(methods, METHODS)
    for model in _known(models, MODELS):
        for records in map(int, batch.split(",")):
            for line in measured(Group(model, records, chosen, seconds, threads)):
                show("private_step", line, threads)


def show(benchmark: str, line: dict[str, Any], threads: int) -> None:
    """Print one result."""
    whole = {"benchmark": benchmark, **line, "threads": threads, **described()}
    print(json.dumps(whole), flush=True)


def _known(names: str, known: dict[str, Any]) -> tuple[str, ...]:
    chosen = tuple(names.split(","))
    for name in chosen:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return chosen


if __name__ == "__main__":
    typer.run(main)
