"""The orchestrator's arithmetic over whole arrays; it works on blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.plan import ServerOptimizer
from orchestrator.aggregation import Accumulator
from orchestrator.server_optimizer import OptimizerState, ServerStep, tail_length, tail_mean

BLOCK = 7  # values; it divides nothing


class InMemory:
    """Values that lie in an array."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        """Give out views of `values`, shape (size,)."""
        self._values = values
        self.size = values.size

    def read(self, block: slice) -> NDArray[np.float32]:
        """Return those of `block`."""
        return self._values[block]


def mean_of(total: Accumulator) -> NDArray[np.float64]:
    """Return the mean of all values."""
    return total.mean(slice(0, total.memory.size))


def server_step(
    weights: NDArray[np.float32],
    mean_difference: NDArray[np.float64],
    state: OptimizerState,
    server: ServerOptimizer,
    *,
    published_round: int,
    count: int,
) -> tuple[NDArray[np.float32], OptimizerState]:
    """Return the next weights and state, made block by block."""
    step = ServerStep(weights.size, state, server, published_round=published_round, count=count)
    blocks = [slice(start, start + BLOCK) for start in range(0, weights.size, BLOCK)]
    stepped = [step.take(block, weights[block], mean_difference[block]) for block in blocks]
    return np.concatenate(stepped), step.state()


def final_model(
    weights: NDArray[np.float32], state: OptimizerState, server: ServerOptimizer, count: int
) -> NDArray[np.float32]:
    """Return the completed run's model from the last weights and state."""
    if state.tail_sum is None:
        return weights
    return tail_mean(state.tail_sum, tail_length(server, count))
