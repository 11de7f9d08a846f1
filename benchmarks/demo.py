"""What a whole private federation reaches, and how long it takes.

    python -m benchmarks.demo [--corpus letters] [--figure docs/images/letters.svg]
    python -m benchmarks.demo --corpus letters --cost-of-privacy 3

One JSON line per corpus; a corpus that is not there is left out and said so on standard error. The
second form runs the demo so often with clipping and noise and so often without, in turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import figures
from benchmarks.machine import ROOT, described

WITHOUT_PRIVACY = Path(__file__).parent / "without_privacy"


def main(
    corpus: Annotated[list[str] | None, typer.Option(help="Which corpora.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the first result.")] = None,
    cost_of_privacy: Annotated[int, typer.Option(help="Runs of each kind to compare.")] = 0,
) -> None:
    """Run the demo on each corpus and print what it found."""
    for number, name in enumerate(corpus or ["letters", "bc5cdr"]):
        if cost_of_privacy:
            compare(name, cost_of_privacy)
            continue
        result = measure(name)
        if result is None:
            continue
        print(json.dumps({"benchmark": "demo", **result, **described()}), flush=True)
        if figure is not None and number == 0:
            draw(result, figure)


def compare(corpus: str, runs: int) -> None:
    """Print the shortest times of private and of not private runs, and their ratio."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(runs):
        for private, times in seconds.items():
            result = measure(corpus, private=private)
            if result is None:
                return
            times.append(result["seconds"])
    shortest = {private: min(times) for private, times in seconds.items()}
    line = {
        "benchmark": "demo_cost_of_privacy",
        "corpus": corpus,
        "seconds_private": shortest[True],
        "seconds_not_private": shortest[False],
        "ratio": round(shortest[True] / shortest[False], 3),
        "runs": runs,
    }
    print(json.dumps({**line, **described()}), flush=True)


def measure(corpus: str, *, private: bool = True) -> dict[str, Any] | None:
    """Return what one demo found, or None if it could not run."""
    environment = dict(os.environ)
    if not private:
        environment["PYTHONPATH"] = f"{WITHOUT_PRIVACY}{os.pathsep}{ROOT}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cli", "demo", "--corpus", corpus, "--format", "json"]
        found = subprocess.run(  # noqa: S603 - ours
            [*command, "--out", f"{folder}/model"],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            check=False,
            env=environment,
        )
    result: dict[str, Any] = json.loads(found.stdout or b"{}")
    if found.returncode or "f1" not in result:
        print(f"{corpus}: left out, the demo did not run", file=sys.stderr)
        return None
    return {key: value for key, value in result.items() if key != "model_path"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw F1 of the federation beside what it is compared with."""
    plt = figures.pyplot()
    alone = sorted(result["f1_alone_not_private"].items(), key=lambda item: item[1])
    names = [f"{site} alone,\nnot private" for site, _ in alone]
    names += [f"federation, private\n(epsilon {result['epsilon']:.2f})", "pooled,\nnot private"]
    values = [100 * f1 for _, f1 in alone]
    values += [100 * result["f1"], 100 * result["f1_pooled_not_private"]]
    colours = ["#b8b8b8"] * len(alone) + ["#1f6f8b", "#dcdcdc"]
    picture, axes = plt.subplots(figsize=(8, 0.55 * len(names) + 1))
    bars = axes.barh(names, values, color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"entity-level F1 on the test split of {result['corpus']}")
    axes.spines[["top", "right"]].set_visible(False)
    figures.save(picture, path)


if __name__ == "__main__":
    typer.run(main)
