"""One gateway's agent at work in this process, and the runs that are started for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from common.ids import GatewayId
from common.plan import Plan
from common.protocol import Refusal, RefusalReason, RunStatus
from common.retry import Backoff
from common.tls import TlsFiles
from common.weights import Weights
from gateway.agent import Agent
from gateway.client import GrpcClient
from gateway.config import GatewayConfig, TaskChoice
from gateway.policy import Policy
from gateway.watching import Watcher
from gateway.workshop import Workshop
from tasks.plan_file import complete
from tasks.task import DataConfig, Task
from tests.signing import NOT_READ, TRUST

SITE = GatewayId("a")
POINTS = DataConfig(corpus="points", site="a")
HOW = {
    "learning_rate": 1.0,
    "clipping_norm": 1.0,
    "noise_multiplier": 20.0,  # quick to account
    "sampling_rate": 0.5,
    "local_steps": 1,
}


def settings(
    state: Path,
    tls: TlsFiles,
    labels: tuple[str, ...],
    *,
    data: DataConfig = POINTS,
    data_set: str = "points",
) -> GatewayConfig:
    """Return a gateway's settings with a budget that no run here uses up."""
    return GatewayConfig(
        address="localhost:1",
        state=state,
        data_set=data_set,
        tls=tls,
        task=TaskChoice(reference="unused", labels=labels),
        data=data,
        policy=Policy(epsilon_budget=1e6),
        trust=NOT_READ,
    )


def plan_for(
    task: Task,
    labels: tuple[str, ...],
    *,
    units: int,
    rounds: dict[str, int],
    local_steps: int = 1,
    **changes: object,
) -> tuple[Plan, Weights]:
    """Return a plan for the one site, and the weights that it begins with."""
    fields = {
        "name": "small",
        "rounds": {"quorum": 1, "deadline_s": 60.0, "retry_pause_s": 0.0, **rounds},
        "privacy": {"delta": 1e-5, "target_epsilon": 100.0},
        "hyperparameters": {**HOW, "local_steps": local_steps},
        "participants": [{"gateway": SITE, "declared_units": units}],
    }
    return complete({**fields, **changes}, task, labels)


@asynccontextmanager
async def at_work(
    workshop: Workshop,
    client: GrpcClient,
    notes: Callable[[bool], None] = lambda _: None,
    watcher: Watcher | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    """Have a gateway's process work inside the block; its workshop is closed at the end."""
    agent = Agent(workshop, client, Backoff(0.01, 0.01), notes, TRUST, watcher=watcher)
    process = asyncio.create_task(agent.run())
    try:
        yield process
    finally:
        process.cancel()
        await asyncio.wait([process])
        workshop.close()


def refusal(status: RunStatus) -> RefusalReason | None:
    """Return why the one site refused the plan, if it did."""
    answer = status.gateways[0].answer if status.gateways else None
    return answer.reason if isinstance(answer, Refusal) else None


def is_settled(status: RunStatus) -> bool:
    """Whether a run has ended, or never will begin."""
    return status.has_ended or refusal(status) is not None
