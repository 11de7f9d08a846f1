"""Mistakes of rounds and their sums: what is counted, when, and how it is added."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from common.protocol import Receipt
from orchestrator import admission, steps, submissions
from orchestrator import rounds as rounds_of
from orchestrator.aggregation import Accumulator
from orchestrator.events import DeadlinePassed, RoundOpened, UpdateAccepted
from orchestrator.in_process import InProcessClient
from orchestrator.rounds import Phase
from orchestrator.running_check import RunningCheck
from tests.simulation.planting import everywhere, put


def float_sum() -> None:
    class FloatSum(Accumulator):
        """The sum in float32, in the order of arrival."""

        def add(self, gateway, values, weight: int, factor: float = 1.0) -> None:
            super().add(gateway, values, weight, factor)
            floats = np.float32(weight / self._total_weight * factor) * values_of(values)
            self.floats = self.__dict__.get("floats", np.float32(0.0)) + floats

        def mean(self, block=slice(None)):
            factor = self._total_weight / sum(self._weights.values())
            return self.floats[block].astype(np.float64) * factor

    put(submissions, "Accumulator", FloatSum)


def values_of(values):
    """Return all values of an update."""
    return values.read(slice(0, values.size))


class Padded(Accumulator):
    """A sum to which more can be added than its members say."""

    def also(self, values, weight: int) -> None:
        steps = np.rint(values * np.float64(weight / self._total_weight) * 2.0**40).astype(np.int64)
        if self.members and self.memory.size == steps.size:
            self.memory += steps


def duplicate_counted() -> None:
    """A repeated update is added again."""
    put(submissions, "Accumulator", Padded)
    sound = InProcessClient.submit_update

    async def submit_update(self, header, chunks) -> Receipt:
        live = self.orchestrator.runs.get(header.key.run_id)
        before = live.run.round is not None and self.gateway in live.run.round.received
        receipt = await sound(self, header, chunks)
        if before and live.sum is not None and receipt.digest in _trained():
            values = np.array(_trained()[receipt.digest], dtype=np.float32)
            live.sum.also(values, live.run.plan.weight(self.gateway))
        return receipt

    put(InProcessClient, "submit_update", submit_update)


def fold_before_check() -> None:
    """What begins to arrive is in the sum at once; what breaks off is not taken out again."""
    put(submissions, "Accumulator", Padded)
    sound = InProcessClient.submit_update

    async def submit_update(self, header, chunks) -> Receipt:
        live = self.orchestrator.runs.get(header.key.run_id)
        try:
            return await sound(self, header, chunks)
        except BaseException:
            values = _trained().get(header.body.digest)
            if values is not None and live.sum is not None:
                weight = live.run.plan.weight(self.gateway)
                live.sum.also(np.array(values, dtype=np.float32), weight)
            raise

    put(InProcessClient, "submit_update", submit_update)


def resumed_without_digest() -> None:
    """What an earlier transfer left, is believed to be the beginning of the same bytes."""

    def finish(self, read) -> None:
        if self._body.offset:
            self._body = replace(self._body, digest=self._hasher.hexdigest())
        return sound(self, read)

    sound = put(RunningCheck, "finish", finish)


def _trained() -> dict[str, tuple[float, ...]]:
    """Return every update of the simulation by digest: a bug is too lazy to keep the bytes."""
    from tests.simulation.database import CURRENT  # noqa: PLC0415

    return CURRENT[0].trained


def quorum_not_checked() -> None:
    put(rounds_of, "_close", lambda state: replace(state, phase=Phase.AGGREGATING))


def awaited_counted() -> None:
    """A round closes over what came before a restart, without waiting for it again."""

    def step(run, presence, *, is_overdue):
        wanted = sound(run, presence, is_overdue=is_overdue)
        return steps.PassDeadline(()) if isinstance(wanted, steps.PassDeadline) else wanted

    sound, advance = steps.next_step, rounds_of._while_collecting

    def while_collecting(state, event):
        if isinstance(event, DeadlinePassed) and state.awaited:
            return rounds_of._close(replace(state, awaited={}))
        return advance(state, event)

    put(rounds_of, "_while_collecting", while_collecting)
    everywhere(sound, step)


def late_update_accepted() -> None:
    """An update that comes while the round closes is counted too."""
    sound = rounds_of._while_aggregating

    def while_aggregating(state, event):
        if isinstance(event, UpdateAccepted):
            return replace(state, received={**state.received, event.gateway: event.digest})
        return sound(state, event)

    put(rounds_of, "_while_aggregating", while_aggregating)
    counted = admission.is_counted

    def is_counted(run, gateway, key, digest) -> bool:
        state = run.round
        is_closing = state is not None and state.phase is Phase.AGGREGATING
        if is_closing and key.round == state.number and gateway not in state.answered:
            return False
        return counted(run, gateway, key, digest)

    everywhere(counted, is_counted)


def reopened_on_another_parent() -> None:
    sound = steps._round

    def opened(run, number: int, attempt: int, presence) -> RoundOpened:
        event = sound(run, number, attempt, presence)
        return replace(event, parent=run.plan.initial_weights) if attempt > 1 else event

    put(steps, "_round", opened)
