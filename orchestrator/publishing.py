"""From a round's sum to durable weights; runs in the folding thread."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from common.weights import Weights
from orchestrator.events import RoundAbandoned, RoundPublished, RunCompleted
from orchestrator.server_optimizer import OptimizerState, final_model, server_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestrator.aggregation import Accumulator
    from orchestrator.runs import Run
    from orchestrator.weight_store import WeightStore


class SumIncomplete(RuntimeError):
    """The sum does not hold the updates that the journal names: nothing may be published."""


def publish(
    run: Run, total: Accumulator | None, store: WeightStore
) -> RoundPublished | RoundAbandoned:
    """Step the server's optimiser on the mean; return the event that names what is durable now."""
    received = frozenset() if run.round is None else frozenset(run.round.received)
    if total is None or total.members != received:
        raise SumIncomplete(run.run_id)
    weights, state = _step(run, total.mean(), store)
    if not np.isfinite(weights.values).all():
        return RoundAbandoned("the new weights would not be finite: lower server.learning_rate")
    digest, kept = store.put(weights.to_bytes()), state.to_bytes()
    return RoundPublished(digest, store.put(kept) if kept else None, tuple(sorted(received)))


def _step(
    run: Run, mean_difference: NDArray[np.float64], store: WeightStore
) -> tuple[Weights, OptimizerState]:
    """Return the next weights and state; the parent's memory is let go with this frame."""
    parent = Weights.from_bytes(store.get(run.weights), run.plan.task.layout)
    values, state = server_step(
        parent.values,
        mean_difference,
        _state(run, store),
        run.plan.server,
        published_round=run.published + 1,
        count=run.plan.rounds.count,
    )
    return Weights(parent.layout, values), state


def complete(run: Run, store: WeightStore) -> RunCompleted:
    """Make the run's model durable; return the event that names it."""
    last = Weights.from_bytes(store.get(run.weights), run.plan.task.layout)
    count = run.plan.rounds.count
    values = final_model(last.values, _state(run, store), run.plan.server, count)
    data = Weights(last.layout, values).to_bytes()
    return RunCompleted(store.put(data), hashlib.sha256(data).hexdigest())


def _state(run: Run, store: WeightStore) -> OptimizerState:
    digest = run.optimizer_state
    return OptimizerState() if digest is None else OptimizerState.from_bytes(store.get(digest))
