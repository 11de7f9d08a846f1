"""What a whole private federation reaches, and how long it takes.

    python -m benchmarks.demo [--corpus letters] [--figure docs/images/letters.svg]

One JSON line per corpus; a corpus that is not there is left out and said so on standard error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import ROOT, described


def main(
    corpus: Annotated[list[str] | None, typer.Option(help="Which corpora.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw the first result.")] = None,
) -> None:
    """Run the demo on each corpus and print what it found."""
    for number, name in enumerate(corpus or ["letters", "bc5cdr"]):
        result = measure(name)
        if result is None:
            continue
        print(json.dumps({"benchmark": "demo", **result, **described()}), flush=True)
        if figure is not None and number == 0:
            draw(result, figure)


def measure(corpus: str) -> dict[str, Any] | None:
    """Return what one demo found, or None if it could not run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "cli", "demo", "--corpus", corpus, "--format", "json"]
        found = subprocess.run(  # noqa: S603 - ours
            [*command, "--out", f"{folder}/model"], stdout=subprocess.PIPE, cwd=ROOT, check=False
        )
    result: dict[str, Any] = json.loads(found.stdout or b"{}")
    if found.returncode or "f1" not in result:
        print(f"{corpus}: left out, the demo did not run", file=sys.stderr)
        return None
    return {key: value for key, value in result.items() if key != "model_path"}


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw F1 of the federation beside what it is compared with."""
    import matplotlib as mpl  # noqa: PLC0415 - only for this

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "fedgate"
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only for this

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
    picture.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    typer.run(main)
