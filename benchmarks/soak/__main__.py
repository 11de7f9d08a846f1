"""Whether memory, file descriptors and threads stay what they are through many runs and rounds.

    python -m benchmarks.soak --minutes 60 --gateways 2 --mib 1 --csv soak.csv --figure soak.svg
    python -m benchmarks.soak --from-csv soak.csv --figure soak.svg

One JSON line. Real processes over mTLS do short and longer runs one after the other, each of other
weights, and pause so that all together use no more than `--share` of a core. Orchestrator and one
gateway are looked at every few seconds. What grows is given for an hour, after the warm-up: the
median over all pairs of samples, so that neither a pause nor a peak in mid-round bends it, with
the ends of its 95 % interval. The second form draws the samples of an earlier soak again.
"""

from __future__ import annotations

import json
import sys
import time  # noqa: TID251 - it measures
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import described
from benchmarks.soak import figure as drawing
from benchmarks.soak import sampling
from benchmarks.soak.sampling import Sample, Sampler
from benchmarks.soak.slopes import Growth, Slope, growth
from benchmarks.transport.federation import Federation, Setting
from benchmarks.transport.model import initial
from benchmarks.transport.places import state_folder
from common.errors import UnavailableError

WATCHED = ("orchestrator", "gateway")
ROUNDS_OF_RUNS = (2, 5, 20)


class Work:
    """Runs one after the other until the time is over."""

    def __init__(self, federation: Federation, mib: int, share: float) -> None:
        """Pause between runs so that all processes use `share` of a core."""
        self.runs = self.interrupted = 0
        self.correct = True
        self._federation = federation
        self._mib = mib
        self._share = share
        self._begun = time.monotonic()
        self._cpu_before_s = self._cpu_s

    def go_on(self, minutes: float, sampler: Sampler) -> None:
        """Do runs; one that is broken off, because this machine stood still, is only counted."""
        for rounds in cycle(ROUNDS_OF_RUNS):
            if time.monotonic() - self._begun > 60 * minutes:
                return
            self.runs += 1
            try:
                self._federation.start_from(initial(self._mib, seed=self.runs))
                self.correct &= self._federation.rounds(rounds - 1).correct
                sampler.rounds += rounds
            except UnavailableError as error:
                self.interrupted += 1
                print(f"run {self.runs}: {error}", file=sys.stderr, flush=True)
            self._pause()

    @property
    def share_of_a_core(self) -> float:
        """What all processes used of a core so far."""
        return (self._cpu_s - self._cpu_before_s) / (time.monotonic() - self._begun)

    @property
    def _cpu_s(self) -> float:
        federation = self._federation
        return federation.orchestrator_cpu_s + federation.gateways_cpu_s + time.process_time()

    def _pause(self) -> None:
        earned = (self._cpu_s - self._cpu_before_s) / self._share
        time.sleep(max(0.0, earned - (time.monotonic() - self._begun)))


def found(samples: list[Sample], grown: dict[str, Growth]) -> dict[str, Any]:
    """Return what was found as the result shows it."""
    line: dict[str, Any] = {"rounds": samples[-1].rounds}
    for process, of in grown.items():
        taken = [each for each in samples if each.process == process]
        line |= {
            f"{process}_rss_mb_per_h": _ends(of.rss),
            f"{process}_anonymous_mb_per_h": _ends(of.anonymous),
            f"{process}_pss_mb_per_h": _ends(of.pss),
            f"{process}_descriptors_per_h": _ends(of.descriptors),
            f"{process}_threads_per_h": _ends(of.threads),
            f"{process}_rss_mib": taken[-1].rss_mib,
            f"{process}_descriptors_most": max(each.descriptors for each in taken),
            f"{process}_threads_most": max(each.threads for each in taken),
        }
    return line


def _ends(slope: Slope) -> list[float]:
    return [slope.per_hour, slope.low, slope.high]


def soaked(
    setting: Setting, minutes: float, share: float, every_s: float
) -> tuple[list[Sample], dict[str, Any]]:
    """Return the samples of a soak, and what was done."""
    with Federation(setting) as federation:
        work = Work(federation, setting.mib, share)
        with Sampler(dict(zip(WATCHED, federation.watched, strict=True)), every_s) as sampler:
            work.go_on(minutes, sampler)
        done = {
            "share_of_a_core": round(work.share_of_a_core, 3),
            "runs": work.runs,
            "interrupted": work.interrupted,
            "correct": work.correct,
        }
    return sampler.samples, done


def main(  # noqa: PLR0913 - options
    minutes: Annotated[float, typer.Option(help="How long.")] = 60.0,
    mib: Annotated[int, typer.Option(help="Size of the model in MiB.")] = 1,
    gateways: Annotated[int, typer.Option(help="How many.")] = 2,
    share: Annotated[float, typer.Option(help="Of a core, for all processes.")] = 0.12,
    every_s: Annotated[float, typer.Option(help="Seconds between samples.")] = 5.0,
    warm_up: Annotated[float, typer.Option(help="Minutes that do not count.")] = 10.0,
    folder: Annotated[Path, typer.Option(help="For the state, about 4 GB an hour.")] = Path(),
    csv: Annotated[Path | None, typer.Option(help="Keep the samples.")] = None,
    from_csv: Annotated[Path | None, typer.Option(help="Samples of an earlier soak.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw it.")] = None,
) -> None:
    """Soak, print, and draw."""
    done: dict[str, Any] = {}
    if from_csv is None:
        with state_folder(folder, durable=True) as state:
            setting = Setting(mib, gateways, True, state / "federation", gateways)
            samples, done = soaked(setting, minutes, share, every_s)
        done |= {"mib": mib, "gateways": gateways, "minutes": minutes}
    else:
        samples = sampling.read(from_csv)
    if csv is not None:
        sampling.write(samples, csv)
    grown = {process: growth(samples, process, warm_up) for process in WATCHED}
    whole = {"benchmark": "soak", **done, "warm_up_minutes": warm_up, **found(samples, grown)}
    print(json.dumps({**whole, **described()}), flush=True)
    if figure is not None:
        drawing.draw(samples, grown, warm_up, figure)


if __name__ == "__main__":
    typer.run(main)
