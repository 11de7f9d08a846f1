"""The operator, who starts a run and asks again until the orchestrator has said that it goes on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from common.protocol import Body
from common.transfer import chunks_of
from tests.signing import order
from tests.simulation.training import INITIAL

if TYPE_CHECKING:
    from tests.simulation.federation import Federation

RUN = "run"


async def operate(federation: Federation) -> None:
    """Return once the run was started."""
    network = federation.network
    while True:
        server = network.serving
        if server is not None:
            operations = network.programs[server].operations
            asked = server.spawn(_start_run(operations, federation.plan), "operator")
            await asyncio.wait([asked], timeout=30.0)
            if asked.done() and not asked.cancelled() and asked.exception() is None:
                return
        await asyncio.sleep(federation.random.uniform(0.1, 2.0))


async def _start_run(operations, plan) -> None:
    data = INITIAL.to_bytes()

    async def chunks():
        for chunk in chunks_of(data):
            yield chunk

    await operations.put_weights(Body(INITIAL.digest, len(data)), chunks())
    await operations.start_run(*order(RUN, plan))
