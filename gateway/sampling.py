"""Poisson batches: every unit is in a batch with the same probability, on its own.

A sampler names its own accounting event, and nothing else does: what is accounted as Poisson
sampling has been drawn by it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.accounting import PrivacyEvent
from common.randomness import RandomStream

Drawn: TypeAlias = NDArray[np.int64]


class PoissonSampler:
    """Draws batches in which each of `population_size` units is with probability `rate`.

    A unit is the plan's: an example, or a document or person with all its records. How many
    records a unit has plays no part.
    """

    def __init__(self, rate: float, population_size: int) -> None:
        """Sample at `rate` q in (0, 1], a constant of the plan, never of a live count."""
        self._rate = rate
        self._population_size = population_size

    def draw(self, stream: RandomStream) -> Drawn:
        """Return which units are in one batch, in rising order, shape (batch,); it may be empty.

        Units are chosen independently of one another and of other batches. The size of a batch
        is binomial; no batch is cut short or filled up.
        """
        return np.flatnonzero(stream.uniforms(self._population_size) <= self._rate)

    def event(self, *, noise_multiplier: float, steps: int) -> PrivacyEvent:
        """Return what `steps` batches of this sampler cost under noise `noise_multiplier`."""
        return PrivacyEvent(noise_multiplier, self._rate, steps)
