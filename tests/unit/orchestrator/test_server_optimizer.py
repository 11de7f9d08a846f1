from __future__ import annotations

import numpy as np
import pytest

from common.plan import Schedule, ServerOptimizer
from orchestrator.server_optimizer import (
    OptimizerState,
    learning_rate,
    tail_length,
)
from tests.averaging import final_model, server_step

COUNT = 7
SERVERS = [
    ServerOptimizer(),
    ServerOptimizer(learning_rate=0.5, momentum=0.9),
    ServerOptimizer(schedule=Schedule.LINEAR, final_fraction=0.1, tail_average=0.5),
    ServerOptimizer(momentum=0.5, schedule=Schedule.LINEAR, tail_average=1.0),
]


@pytest.fixture
def differences():
    return np.random.default_rng(1).normal(size=(COUNT, 50))


def run(server: ServerOptimizer, start: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """As the orchestrator does it: the state goes through bytes after every round."""
    weights, kept = start, b""
    for number, difference in enumerate(differences, 1):
        state = OptimizerState.from_bytes(kept)
        weights, state = server_step(
            weights, difference, state, server, published_round=number, count=COUNT
        )
        kept = state.to_bytes()
    return final_model(weights, OptimizerState.from_bytes(kept), server, COUNT)


def reference(server: ServerOptimizer, start: np.ndarray, differences: np.ndarray) -> np.ndarray:
    """As the formulas say it."""
    weights, momentum, history = start, np.zeros(start.size), []
    for t, difference in enumerate(differences, 1):
        momentum = server.momentum * momentum + difference
        rate = server.learning_rate
        if server.schedule is Schedule.LINEAR:
            rate *= 1.0 + (server.final_fraction - 1.0) * ((t - 1) / (COUNT - 1))
        weights = (weights + rate * momentum).astype(np.float32)
        history.append(weights.astype(np.float64))
    share = max(1, round(server.tail_average * COUNT))
    return (sum(history[-share:]) / share).astype(np.float32)


@pytest.mark.parametrize("server", SERVERS)
def test_the_optimiser_is_the_reference_bit_for_bit(server, differences):
    start = np.random.default_rng(2).normal(size=50).astype(np.float32)
    ours, theirs = run(server, start, differences), reference(server, start, differences)
    assert ours.dtype == np.float32
    assert ours.tobytes() == theirs.tobytes()


def test_a_linear_schedule_goes_from_the_rate_to_its_fraction():
    server = ServerOptimizer(learning_rate=2.0, schedule=Schedule.LINEAR, final_fraction=0.25)
    rates = [learning_rate(server, t, 4) for t in range(1, 5)]
    assert rates == pytest.approx([2.0, 1.5, 1.0, 0.5])


def test_a_schedule_over_one_round_is_its_first_rate():
    assert learning_rate(ServerOptimizer(schedule=Schedule.LINEAR), 1, 1) == 1.0


def test_a_state_that_no_plan_needs_has_no_bytes():
    _, state = server_step(
        np.zeros(2, dtype=np.float32),
        np.ones(2),
        OptimizerState(),
        ServerOptimizer(),
        published_round=1,
        count=2,
    )
    assert state.to_bytes() == b""


def test_equal_states_have_equal_bytes():
    state = OptimizerState(np.arange(3.0), np.ones(3))
    assert state.to_bytes() == OptimizerState(np.arange(3.0), np.ones(3)).to_bytes()


@pytest.mark.parametrize(("share", "length"), [(0.0, 1), (0.1, 1), (0.5, 5), (1.0, 10)])
def test_the_tail_is_a_share_of_the_rounds_and_never_empty(share, length):
    assert tail_length(ServerOptimizer(tail_average=share), 10) == length
