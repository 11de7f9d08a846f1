"""How fast something grows, whatever stands out."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.soak.sampling import Sample
from benchmarks.soak.slopes import growth, slope

HOURS = [minute / 60 for minute in range(60)]


def test_a_steady_growth_is_found_through_noise_and_outliers():
    noise = np.random.default_rng(0).normal(scale=0.2, size=len(HOURS))
    values = [100.0 + 3.0 * hour + wobble for hour, wobble in zip(HOURS, noise, strict=True)]
    values[20] = values[40] = 500.0  # in mid-round
    found = slope(HOURS, values)
    assert found.per_hour == pytest.approx(3.0, abs=0.4)
    assert found.low < 3.0 < found.high
    assert found.at_start == pytest.approx(100.0, abs=0.5)


def test_what_only_goes_up_and_down_does_not_grow():
    found = slope(HOURS, [20.0 + minute % 4 for minute in range(60)])
    assert found.per_hour == pytest.approx(0.0, abs=0.2)


def test_two_samples_are_too_few():
    with pytest.raises(ValueError, match="2 samples after the warm-up"):
        slope([0.0, 1.0], [1.0, 2.0])


def test_only_the_process_asked_for_counts_and_only_after_its_warm_up():
    def sample(minutes: float, process: str, mib: float) -> Sample:
        return Sample(minutes, process, mib, 2 * mib, 3 * mib, 10, 5, 0)

    warming = [sample(minute, "a", 50.0 * minute) for minute in range(10)]
    growing = [sample(minute, "a", 500.0 + minute) for minute in range(10, 20)]
    others = [sample(minute, "b", 9.0 * minute) for minute in range(20)]
    found = growth([*warming, *growing, *others], "a", 10.0)
    assert found.rss.per_hour == pytest.approx(60 * 1.048576, abs=0.001)
    assert found.anonymous.per_hour == pytest.approx(120 * 1.048576, abs=0.001)
    assert (found.descriptors.per_hour, found.threads.per_hour) == (0.0, 0.0)
