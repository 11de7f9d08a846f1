"""The evaluator: scores what a run publishes, on public splits, on the operator's side.

The dev split is scored while the run goes on, as often as there is time; the test split once, when
the run has completed. Nothing of a gateway's own data is read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeAlias

from common.mailbox import Mailbox
from common.protocol import RunState, ScoreSet
from common.weights import Weights
from common.wire import plan_from_bytes
from tasks.parameters import load_weights

if TYPE_CHECKING:
    from pathlib import Path

    from cli.operator_client import OperatorClient
    from common.ids import RunId, WeightsId
    from common.plan import Plan
    from common.protocol import RunStatus
    from tasks.task import DataConfig, Dataset, Scores, Task

Split: TypeAlias = Literal["dev", "test"]
State: TypeAlias = "tuple[RunStatus, bytes]"


REST_S = 2.0  # between two scores of the dev split, so that training keeps the processor


class Evaluator:
    """Scores the models of runs that it watches."""

    def __init__(self, client: OperatorClient, task: Task, data: DataConfig, cache: Path) -> None:
        """Score with `task` on the dev and test splits of `data`, features kept in `cache`."""
        self._client = client
        self._task = task
        self._data = data
        self._cache = cache
        self._datasets: dict[Split, Dataset] = {}

    async def watch(self, run_id: RunId) -> RunStatus:
        """Score what `run_id` publishes until it has ended; return its last state."""
        newest: Mailbox[None, State] = Mailbox()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(run_id, newest))
            last = await self._score_newest(newest)
        status, plan = last
        if status.state is RunState.COMPLETED and status.model is not None:
            await self._record(status, plan, status.model, "dev")
            await self._record(status, plan, status.model, "test")
        return status

    async def _listen(self, run_id: RunId, newest: Mailbox[None, State]) -> None:
        try:
            async for state in self._client.follow_run(run_id):
                newest.put(None, state)
        finally:
            newest.close()

    async def _score_newest(self, newest: Mailbox[None, State]) -> State:
        """Score the dev split of each newest published model; return the last state seen."""
        last: State | None = None
        scored: set[WeightsId] = set()
        while (word := await newest.get()) is not None:
            _, last = word
            status, plan = last
            if not self._datasets:
                await asyncio.to_thread(self._dataset, plan_from_bytes(plan), "dev")
            if status.published_round and status.weights is not None and not status.has_ended:
                if status.weights not in scored:
                    await self._record(status, plan, status.weights, "dev")
                    await asyncio.sleep(REST_S)
                scored.add(status.weights)
        if last is None:
            msg = "the stream of a run's states ended before its first"
            raise RuntimeError(msg)
        return last

    def _dataset(self, plan: Plan, split: Split) -> Dataset:
        """Return a split, read when it is first needed: the test split when all is trained."""
        if split not in self._datasets:
            data = self._data.model_copy(update={"split": split})
            self._datasets[split] = self._task.read(data, plan.task.labels, self._cache)
        return self._datasets[split]

    async def _record(
        self, status: RunStatus, plan: bytes, weights: WeightsId, split: Split
    ) -> None:
        data = await self._client.fetch_weights(weights)
        found = await asyncio.to_thread(self._score, plan_from_bytes(plan), data, split)
        scores = ScoreSet(
            round=status.published_round,
            split=split,
            weights=weights,
            f1=found.f1,
            precision=found.precision,
            recall=found.recall,
            support=found.support,
        )
        await self._client.record_scores(status.run_id, scores)

    def _score(self, plan: Plan, data: memoryview, split: Split) -> Scores:
        model = self._task.build_model(plan.task.labels)
        load_weights(model, Weights.from_bytes(data, plan.task.layout))
        return self._task.score(model, self._dataset(plan, split))
