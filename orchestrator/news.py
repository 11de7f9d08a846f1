"""What a gateway should do now in a run: a function of the run's state alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.protocol import (
    Body,
    Effective,
    Review,
    RunNews,
    RunState,
    Stop,
    StopReason,
    Train,
    Wait,
    WaitReason,
)
from common.trace_context import traceparent_of

if TYPE_CHECKING:
    from common.ids import GatewayId, RunId
    from common.protocol import Instruction
    from orchestrator.rounds import Round
    from orchestrator.runs import Run

_STOPS = {
    RunState.COMPLETED: StopReason.COMPLETED,
    RunState.FAILED: StopReason.FAILED,
    RunState.CANCELLED: StopReason.CANCELLED,
}


@dataclass(frozen=True)
class News:
    """What to say, and what it is the news of: the same is not said twice on one stream."""

    said: RunNews
    of: tuple[object, ...]


def news_for(
    run: Run, gateway: GatewayId, *, byte_length: int, remaining_s: float, restarts: int = 0
) -> News:
    """Return the state of `run` for one of its participants.

    Args:
        run: where it stands.
        gateway: one of its participants.
        byte_length: of the weights that its open round starts from.
        remaining_s: until that round closes.
        restarts: how often what was received has had to come again since the process began: a
            gateway may not have been told in between that it was received.
    """
    instruction = _instruction(run, gateway, byte_length, remaining_s)
    said = RunNews(run.run_id, run.published, instruction)
    if isinstance(instruction, Train) and run.round is not None:
        return News(said, (Train, run.round.number, run.round.attempt, restarts))
    return News(said, (run.published, instruction))


def traceparent_for(run: Run, state: Round) -> str:
    """Return the trace of one attempt at a round of `run`."""
    return traceparent_of(run.run_id, run.plan_digest, state.number, state.attempt)


def unknown_run(run_id: RunId) -> News:
    """Return what is said of a run that is not held here, or not with this gateway."""
    stop = Stop(StopReason.UNKNOWN_RUN)
    return News(RunNews(run_id, 0, stop), (stop,))


def _instruction(run: Run, gateway: GatewayId, byte_length: int, remaining_s: float) -> Instruction:
    if run.state in _STOPS:
        return Stop(_STOPS[run.state])
    if not isinstance(run.answers.get(gateway), Effective):
        return Review(run.plan_digest)  # after a refusal too: its policy may have changed
    if run.round is None or run.round.has_ended or gateway not in run.round.invited:
        return Wait(WaitReason.NO_ROUND)
    if run.round.wants(gateway):
        parent = Body(run.round.parent, byte_length)
        return Train(run.round.number, parent, remaining_s, traceparent_for(run, run.round))
    return Wait(WaitReason.OTHERS)
