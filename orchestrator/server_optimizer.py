r"""What turns the averaged difference into the next weights: numpy float64, one fixed order.

.. math:: m_t = \beta m_{t-1} + d_t, \qquad x_t = x_{t-1} + \eta_t m_t

with d_t the mean difference of published round t, beta the momentum and eta_t the scheduled rate.
The completed model is the mean of the last share of the x_t, or the last one.

Source:
    Hsu, Qi and Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification" (FedAvgM); Polyak and Juditsky 1992 for the averaging of the tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from safetensors.numpy import load, save

from common.plan import Schedule
from orchestrator.aggregation import blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from common.plan import ServerOptimizer


@dataclass(frozen=True)
class OptimizerState:
    """What one step leaves for the next; an array that the plan does not need is None."""

    momentum: NDArray[np.float64] | None = None  # m_t, shape (size,)
    tail_sum: NDArray[np.float64] | None = None  # sum of the tail's x_t so far, shape (size,)

    def to_bytes(self) -> bytes:
        """Return bytes that hold the state; empty for a state that holds nothing."""
        arrays = {"momentum": self.momentum, "tail_sum": self.tail_sum}
        present = {name: array for name, array in arrays.items() if array is not None}
        return save(present) if present else b""

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state that `to_bytes` wrote."""
        return cls(**load(data)) if data else cls()


def learning_rate(server: ServerOptimizer, published_round: int, count: int) -> float:
    """Return eta_t for round t = 1..count; an abandoned round does not move it."""
    if server.schedule is Schedule.CONSTANT or count == 1:
        return server.learning_rate
    progress = (published_round - 1) / (count - 1)
    return server.learning_rate * (1.0 + (server.final_fraction - 1.0) * progress)


def tail_length(server: ServerOptimizer, count: int) -> int:
    """Return how many of the last rounds the completed model averages; at least 1."""
    return max(1, round(server.tail_average * count))


def server_step(
    weights: NDArray[np.float32],
    mean_difference: NDArray[np.float64],
    state: OptimizerState,
    server: ServerOptimizer,
    *,
    published_round: int,
    count: int,
) -> tuple[NDArray[np.float32], OptimizerState]:
    """Return the next weights and state; all arrays have shape (size,).

    Args:
        weights: x_{t-1}, as published.
        mean_difference: d_t.
        state: what the round before left.
        server: the plan's.
        published_round: t, from 1.
        count: rounds to publish in all.
    """
    momentum = _momentum(mean_difference, state.momentum, server.momentum)
    rate = learning_rate(server, published_round, count)
    stepped = np.empty_like(weights)
    with np.errstate(over="ignore"):  # the caller refuses what is not finite
        for block in blocks(weights.size):  # no second vector in float64
            stepped[block] = weights[block] + rate * momentum[block]
    tail, length = state.tail_sum, tail_length(server, count)
    if length > 1 and published_round > count - length:
        tail = stepped.astype(np.float64) if tail is None else tail + stepped
    return stepped, OptimizerState(momentum if server.momentum else None, tail)


def _momentum(
    difference: NDArray[np.float64], before: NDArray[np.float64] | None, beta: float
) -> NDArray[np.float64]:
    return difference if before is None else beta * before + difference


def final_model(
    weights: NDArray[np.float32], state: OptimizerState, server: ServerOptimizer, count: int
) -> NDArray[np.float32]:
    """Return the completed run's model, shape (size,), from the last weights and state."""
    if state.tail_sum is None:
        return weights
    return (state.tail_sum / tail_length(server, count)).astype(np.float32)
