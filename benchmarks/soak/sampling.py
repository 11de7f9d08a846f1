"""What processes hold, read every few seconds from the outside while they work."""

from __future__ import annotations

import csv
import time  # noqa: TID251 - it measures
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import TracebackType

MIB = 1 << 20
PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Sample:
    """What one process held at one moment."""

    minutes: float  # since sampling began
    process: str
    rss_mib: float  # resident, files that are mapped included
    anonymous_mib: float  # resident, of no file
    pss_mib: float  # resident, what is shared counted in parts
    descriptors: int
    threads: int
    rounds: int  # done by then


class Sampler:
    """Reads processes by name until it is left; `with` it."""

    def __init__(self, processes: Mapping[str, int], every_s: float) -> None:
        """Read the `processes`, named with their ids, each `every_s` seconds."""
        self.samples: list[Sample] = []
        self.rounds = 0  # done; whoever lets them run counts them here
        self._processes = processes
        self._every_s = every_s
        self._ended = Event()
        self._thread = Thread(target=self._read, name="sampler")

    def __enter__(self) -> Self:
        self._begun = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.wait(self._every_s):
            for name, pid in self._processes.items():
                minutes = (time.monotonic() - self._begun) / 60
                self.samples.append(sample(name, pid, minutes, self.rounds))


def sample(name: str, pid: int, minutes: float, rounds: int) -> Sample:
    """Return what process `pid` holds now."""
    folder = PROCESSES / str(pid)
    memory, status = _table(folder / "smaps_rollup"), _table(folder / "status")
    return Sample(
        minutes=round(minutes, 4),
        process=name,
        rss_mib=_mib(memory["Rss"]),
        anonymous_mib=_mib(memory["Anonymous"]),
        pss_mib=_mib(memory["Pss"]),
        descriptors=len(list((folder / "fd").iterdir())),
        threads=int(status["Threads"]),
        rounds=rounds,
    )


def write(samples: Iterable[Sample], path: Path) -> None:
    """Write a table of `samples`, a line each."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [each.name for each in fields(Sample)], lineterminator="\n")
        table.writeheader()
        table.writerows(map(asdict, samples))


def read(path: Path) -> list[Sample]:
    """Return the samples of a table that `write` made."""
    with path.open(newline="") as file:
        return [_of_row(row) for row in csv.DictReader(file)]


def _of_row(row: Mapping[str, str]) -> Sample:
    return Sample(
        minutes=float(row["minutes"]),
        process=row["process"],
        rss_mib=float(row["rss_mib"]),
        anonymous_mib=float(row["anonymous_mib"]),
        pss_mib=float(row["pss_mib"]),
        descriptors=int(row["descriptors"]),
        threads=int(row["threads"]),
        rounds=int(row["rounds"]),
    )


def _table(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def _mib(kibibytes: str) -> float:
    return round(int(kibibytes.removesuffix("kB")) * 1024 / MIB, 3)
