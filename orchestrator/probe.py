"""Whether the orchestrator on this machine serves: for exec probes, which have no certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc.aio
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub

if TYPE_CHECKING:
    from pathlib import Path

TIMEOUT_S = 3.0


async def check_health(socket: Path) -> bool:
    """Return whether the health service behind a Unix socket says SERVING, within TIMEOUT_S."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        try:
            response = await HealthStub(channel).Check(pb.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
    return bool(response.status == pb.HealthCheckResponse.SERVING)
