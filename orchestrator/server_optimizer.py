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


class ServerStep:
    """One step of the server's optimiser, block by block, so that no second model is in memory."""

    def __init__(
        self,
        size: int,
        state: OptimizerState,
        server: ServerOptimizer,
        *,
        published_round: int,
        count: int,
    ) -> None:
        """Begin the step of round t = `published_round` of `count`, after what left `state`.

        All arrays have `size` values.
        """
        length = tail_length(server, count)
        is_in_tail = length > 1 and published_round > count - length
        self._rate = learning_rate(server, published_round, count)
        self._beta = server.momentum
        self._momentum = _changed(state.momentum, size, is_needed=server.momentum > 0)
        self._tail_sum = _changed(state.tail_sum, size, is_needed=is_in_tail)
        self._adds_to_tail = is_in_tail

    def take(
        self, block: slice, weights: NDArray[np.float32], mean_difference: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return x_t of `block` from x_{t-1} and d_t there; each block is taken once."""
        momentum = mean_difference
        if self._momentum is not None:
            momentum = self._beta * self._momentum[block] + mean_difference
            self._momentum[block] = momentum
        with np.errstate(over="ignore"):  # the caller refuses what is not finite
            stepped = (weights + self._rate * momentum).astype(np.float32)
        if self._tail_sum is not None and self._adds_to_tail:
            self._tail_sum[block] += stepped
        return stepped

    def state(self) -> OptimizerState:
        """Return what is left for the next step, once every block was taken."""
        return OptimizerState(self._momentum, self._tail_sum)


def _changed(
    array: NDArray[np.float64] | None, size: int, *, is_needed: bool
) -> NDArray[np.float64] | None:
    """Return a copy that may be changed; of nothing, zeros where they are needed."""
    if array is None:
        return np.zeros(size) if is_needed else None
    return array.copy()


def tail_mean(tail_sum: NDArray[np.float64], length: int) -> NDArray[np.float32]:
    """Return the mean of the tail's `length` x_t from their sum, of whatever shape."""
    return (tail_sum / length).astype(np.float32)
