"""How fast what a process holds grows: a line through its samples that outliers do not bend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.stats import theilslopes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.soak.sampling import Sample

MB_PER_MIB = 1.048576


@dataclass(frozen=True)
class Slope:
    """Growth for each hour: the median over all pairs of samples, and its 95 % interval."""

    per_hour: float
    low: float
    high: float
    at_start: float  # of the line, at time 0


@dataclass(frozen=True)
class Growth:
    """What one process holds more of with each hour, after the warm-up."""

    rss: Slope  # in MB
    anonymous: Slope  # in MB
    pss: Slope  # in MB
    descriptors: Slope
    threads: Slope


def growth(samples: Sequence[Sample], process: str, warm_up_minutes: float) -> Growth:
    """Return the growth of `process` after its warm-up."""
    taken = [s for s in samples if s.process == process and s.minutes >= warm_up_minutes]
    hours = [s.minutes / 60 for s in taken]
    return Growth(
        rss=slope(hours, [s.rss_mib * MB_PER_MIB for s in taken]),
        anonymous=slope(hours, [s.anonymous_mib * MB_PER_MIB for s in taken]),
        pss=slope(hours, [s.pss_mib * MB_PER_MIB for s in taken]),
        descriptors=slope(hours, [s.descriptors for s in taken]),
        threads=slope(hours, [s.threads for s in taken]),
    )


def slope(hours: Sequence[float], values: Sequence[float]) -> Slope:
    """Return the slope of `values` over `hours`; raise ValueError for fewer than three.

    Source:
        Sen 1968, "Estimates of the regression coefficient based on Kendall's tau".
    """
    if len(values) < 3:  # noqa: PLR2004 - two always lie on a line
        raise ValueError(f"{len(values)} samples after the warm-up have no slope: soak for longer")
    found = theilslopes(values, hours, 0.95)
    return Slope(
        per_hour=round(float(found.slope), 3),
        low=round(float(found.low_slope), 3),
        high=round(float(found.high_slope), 3),
        at_start=round(float(found.intercept), 3),
    )
