"""From a round's sum to durable weights; runs in the folding thread.

Everything goes block by block, from the parent's file to the new one: beside the sum, and what the
server's optimiser remembers, no array of the model's size is in memory.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from common.weights import FLOAT32_BYTES
from orchestrator.aggregation import BLOCK, blocks
from orchestrator.events import RoundAbandoned, RoundPublished, RunCompleted
from orchestrator.server_optimizer import OptimizerState, ServerStep, tail_length, tail_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from numpy.typing import NDArray

    from common.ids import WeightsId
    from common.weights import Layout
    from orchestrator.aggregation import Accumulator
    from orchestrator.runs import Run
    from orchestrator.weight_store import WeightStore

NOT_FINITE = "the new weights would not be finite: lower server.learning_rate"


class SumIncomplete(RuntimeError):
    """The sum does not hold the updates that the journal names: they must come again."""


def publish(
    run: Run, total: Accumulator | None, store: WeightStore, helpers: Executor | None = None
) -> RoundPublished | RoundAbandoned:
    """Step the server's optimiser on the mean; return the event that names what is durable now.

    A thread of `helpers`, if there are any, reckons one digest while the caller's reckons the
    other.
    """
    received = frozenset() if run.round is None else frozenset(run.round.received)
    if total is None or total.members != received:
        raise SumIncomplete(run.run_id)
    layout = run.plan.task.layout
    step = ServerStep(
        layout.size,
        _state(run, store),
        run.plan.server,
        published_round=run.published + 1,
        count=run.plan.rounds.count,
    )
    sha256 = _Sha256Beside(helpers, layout.header)
    with _weights(store, run.weights, layout) as parent, store.writing() as blob:
        blob.write(layout.header)
        for block, weights in parent:
            stepped = step.take(block, weights, total.mean(block))
            if not np.isfinite(stepped).all():
                return RoundAbandoned(NOT_FINITE)
            blob.write(stepped.data.cast("B"))
            sha256.update(stepped.data)
        digest = blob.keep()
    kept, members = step.state().to_bytes(), tuple(sorted(received))
    remembered = store.put(kept) if kept else None
    return RoundPublished(digest, remembered, members, sha256.hexdigest())


def complete(run: Run, store: WeightStore) -> RunCompleted:
    """Make the run's model durable; return the event that names it."""
    tail_sum = _state(run, store).tail_sum
    model = run.weights
    if tail_sum is not None:
        model = _put_mean(tail_sum, run, store)
    return RunCompleted(model, _sha256(store, model))


def _put_mean(tail_sum: NDArray[np.float64], run: Run, store: WeightStore) -> WeightsId:
    length = tail_length(run.plan.server, run.plan.rounds.count)
    with store.writing() as blob:
        blob.write(run.plan.task.layout.header)
        for block in blocks(tail_sum.size):
            blob.write(tail_mean(tail_sum[block], length).data.cast("B"))
        return blob.keep()


class _Sha256Beside:
    """A digest of which a helper, if there is one, reckons a block while the next one is made."""

    def __init__(self, helpers: Executor | None, beginning: bytes) -> None:
        self._helpers = helpers
        self._hasher = hashlib.sha256(beginning)
        self._last: Future[None] = Future()
        self._last.set_result(None)

    def update(self, data: memoryview) -> None:
        """Take bytes that nobody changes any more."""
        self._last.result()
        if self._helpers is None:
            self._hasher.update(data)
        else:
            self._last = self._helpers.submit(self._hasher.update, data)

    def hexdigest(self) -> str:
        """Return the digest of all of them."""
        self._last.result()
        return self._hasher.hexdigest()


def _sha256(store: WeightStore, digest: WeightsId) -> str:
    sha256, room = hashlib.sha256(), memoryview(bytearray(BLOCK * FLOAT32_BYTES))
    with store.reading(digest) as blob:
        while piece := blob.read_into(room):
            sha256.update(piece)
        blob.check()
    return sha256.hexdigest()


@contextmanager
def _weights(
    store: WeightStore, digest: WeightsId, layout: Layout
) -> Iterator[Iterator[tuple[slice, NDArray[np.float32]]]]:
    """Lend the blocks of stored weights, each in memory that the next one uses again.

    Raises:
        DamagedWeights: after the last block, unless all that was read is what was stored.
    """
    room = memoryview(bytearray(max(BLOCK * FLOAT32_BYTES, len(layout.header))))
    with store.reading(digest) as blob:

        def pieces() -> Iterator[tuple[slice, NDArray[np.float32]]]:
            blob.read_into(room[: len(layout.header)])
            for block in blocks(layout.size):
                count = min(block.stop, layout.size) - block.start
                piece = blob.read_into(room[: count * FLOAT32_BYTES])
                if len(piece) < count * FLOAT32_BYTES:
                    break  # which the check finds
                yield block, np.frombuffer(piece, dtype="<f4")
            blob.check()

        yield pieces()


def _state(run: Run, store: WeightStore) -> OptimizerState:
    digest = run.optimizer_state
    return OptimizerState() if digest is None else OptimizerState.from_bytes(store.get(digest))
