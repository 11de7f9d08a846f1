"""The graph of a soak: memory above, file descriptors and threads below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import figures
from benchmarks.soak.slopes import MB_PER_MIB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.soak.sampling import Sample
    from benchmarks.soak.slopes import Growth

COLOURS = ("#1f6f8b", "#c8553d")


def draw(
    samples: Sequence[Sample], grown: Mapping[str, Growth], warm_up_minutes: float, path: Path
) -> None:
    """Draw the samples and the lines through them; what is in the warm-up stands on grey."""
    plt = figures.pyplot()
    picture, (memory, counts) = plt.subplots(2, 1, figsize=(8, 6), sharex=True)
    for (process, growth), colour in zip(grown.items(), COLOURS, strict=True):
        taken = [each for each in samples if each.process == process]
        _memory(memory, taken, growth, colour)
        minutes = [each.minutes for each in taken]
        descriptors = [each.descriptors for each in taken]
        threads = [each.threads for each in taken]
        counts.plot(minutes, descriptors, color=colour, label=f"{process}: file descriptors")
        counts.plot(minutes, threads, ":", color=colour, label=f"{process}: threads")
    memory.set_ylabel("anonymous memory, MB")
    counts.set_ylabel("count")
    counts.set_xlabel("minutes")
    for axes in (memory, counts):
        axes.axvspan(0, warm_up_minutes, color="#eeeeee")
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right", ncols=2)
    figures.save(picture, path)


def _memory(axes: Any, taken: Sequence[Sample], growth: Growth, colour: str) -> None:
    minutes = [each.minutes for each in taken]
    held = [each.anonymous_mib * MB_PER_MIB for each in taken]
    name = f"{taken[0].process}: {growth.anonymous.per_hour:+.2f} MB an hour"
    axes.plot(minutes, held, ".", markersize=2, color=colour, label=name)
    ends = (minutes[0], minutes[-1])
    line = [growth.anonymous.at_start + growth.anonymous.per_hour * end / 60 for end in ends]
    axes.plot(ends, line, linewidth=1, color=colour)
