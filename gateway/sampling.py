"""Poisson batches: every example is in a batch with the same probability, on its own.

A sampler names its own accounting event, and nothing else does: what is accounted as Poisson
sampling has been drawn by it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.accounting import PrivacyEvent
from common.randomness import RandomStream

Rows: TypeAlias = NDArray[np.int64]


class PoissonSampler:
    """Draws batches in which each of `population_size` examples is with probability `rate`."""

    def __init__(self, rate: float, population_size: int) -> None:
        """Sample at `rate` q in (0, 1], a constant of the plan, never of the row count."""
        self._rate = rate
        self._population_size = population_size

    def draw(self, stream: RandomStream) -> Rows:
        """Return the rows of one batch in rising order, shape (batch,); it may be empty.

        Rows are chosen independently of one another and of other batches. The size of a batch
        is binomial; no batch is cut short or filled up.
        """
        return np.flatnonzero(stream.uniforms(self._population_size) <= self._rate)

    def event(self, *, noise_multiplier: float, steps: int) -> PrivacyEvent:
        """Return what `steps` batches of this sampler cost under noise `noise_multiplier`."""
        return PrivacyEvent(noise_multiplier, self._rate, steps)
