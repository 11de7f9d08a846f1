"""What seeds came to: each one, and all together, with how often each fault has happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.simulation.faults import Fault

ONE_OF = 20  # seeds, in the mean, at least one has each fault
JUDGED_FROM = 100  # seeds: fewer say little of how rare a fault is


@dataclass(frozen=True)
class Outcome:
    """What one seed came to."""

    seed: int
    violations: tuple[str, ...]
    counts: dict[str, int]  # of faults
    end: str
    published: int
    seconds: float  # of simulated time
    steps: int
    trace: str  # a digest of all that happened
    tail: tuple[str, ...]  # of the history, where something was violated


@dataclass
class Summary:
    """The sum of the outcomes that were added."""

    seeds: int = 0
    failed: list[int] = field(default_factory=list)
    simulated_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    seeds_with: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.simulated_s += outcome.seconds
        self.faults.update(outcome.counts)
        self.seeds_with.update(outcome.counts.keys())
        if outcome.violations:
            self.failed.append(outcome.seed)

    @property
    def rare(self) -> list[str]:
        """The faults that happened in fewer than one of ONE_OF seeds."""
        return [kind.name for kind in Fault if ONE_OF * self.seeds_with[kind.name] < self.seeds]

    @property
    def is_good(self) -> bool:
        """Whether nothing was violated, and enough has gone wrong to say so."""
        return not self.failed and not (self.rare and self.seeds >= JUDGED_FROM)

    def line(self, seconds: float) -> dict[str, object]:
        return {
            "seeds": self.seeds,
            "failed": sorted(self.failed),
            "seconds": round(seconds, 1),
            "simulated_hours": round(self.simulated_s / 3600, 1),
            "faults": {kind.name: self.faults[kind.name] for kind in Fault},
            "seeds_with": {kind.name: self.seeds_with[kind.name] for kind in Fault},
            "in_fewer_than_one_of_20_seeds": self.rare,
        }

    def table(self) -> Iterable[str]:
        """Yield a line for each fault: how often, in how many seeds, what it is."""
        yield f"{'times':>8} {'seeds':>6}  fault"
        for kind in Fault:
            rare = "  RARE" if kind.name in self.rare else ""
            times, seeds = self.faults[kind.name], self.seeds_with[kind.name]
            yield f"{times:8} {seeds:6}  {kind.name}: {kind.value}{rare}"
