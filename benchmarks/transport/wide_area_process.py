"""Who takes part in a measurement over a wide-area link, each in a process of its own.

    python -m benchmarks.transport.wide_area_process operator FOLDER ADDRESS MIB
    python -m benchmarks.transport.wide_area_process gateway FOLDER ADDRESS WINDOW_MIB

The operator has one round run and checks the average. The gateway is a real one that does not
train; it prints what each transfer took, from the call to its last answer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time  # noqa: TID251 - measures
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from benchmarks.transport import signing
from benchmarks.transport.gateway_process import ConstantGateway
from benchmarks.transport.model import after, initial, plan
from cli.operator_client import OperatorClient
from common import logs
from common.allocator import GIB, keep_on_the_heap
from common.http2 import Http2Settings
from common.ids import RunId
from common.protocol import Chunk, RunState
from common.retry import Backoff
from common.tls import TlsFiles
from common.wire import plan_to_bytes
from gateway.agent import Agent
from gateway.client import GrpcClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.ids import WeightsId
    from common.protocol import Body, Receipt, UpdateHeader

GATEWAY = "g1"


class TimedClient(GrpcClient):
    """Prints one line for each whole transfer."""

    async def fetch_weights(self, digest: WeightsId, offset: int) -> AsyncIterator[Body | Chunk]:
        """Yield as a gateway's channel does."""
        began, count = time.perf_counter(), 0
        async for part in super().fetch_weights(digest, offset):
            count += len(part.data) if isinstance(part, Chunk) else 0
            yield part
        _say("down", count, began)

    async def submit_update(self, header: UpdateHeader, chunks: AsyncIterator[Chunk]) -> Receipt:
        """Send as a gateway's channel does."""
        began = time.perf_counter()
        receipt = await super().submit_update(header, chunks)
        _say("up", header.body.byte_length - header.body.offset, began)
        return receipt


def _say(direction: str, count: int, began: float) -> None:
    seconds = time.perf_counter() - began
    print(json.dumps({"direction": direction, "bytes": count, "seconds": seconds}), flush=True)


def files(folder: Path, name: str) -> TlsFiles:
    """Return the keys of one who takes part."""
    keys = folder / "keys" / name
    return TlsFiles(authority=keys / "ca.pem", certificate=keys / "cert.pem", key=keys / "key.pem")


async def _operate(folder: Path, address: str, mib: int) -> None:
    """Have one round run; raise where it ends in any other model than it must."""
    begun, run = initial(mib), RunId("wide")
    ordered = plan_to_bytes(plan(begun, [GATEWAY], 1))
    async with OperatorClient(address, files(folder, "operator")) as operator:
        await operator.upload_weights(begun.to_bytes())
        await operator.start_run(run, ordered, signing.signed(folder, run, ordered))
        states = [status async for status, _ in operator.follow_run(run)]
        last = states[-1]
        if last.state is not RunState.COMPLETED or not last.weights:
            raise RuntimeError(f"{last.state}: {last.reason}")
        data = await operator.fetch_weights(last.weights)
    if bytes(data) != after(begun, [GATEWAY], 1).to_bytes():
        raise RuntimeError("the average is not the right one")


async def _take_part(folder: Path, address: str, window_mib: float) -> None:
    http2 = Http2Settings(window_mib=window_mib)
    async with TimedClient(address, files(folder, GATEWAY), http2=http2) as client:
        workshop = cast("Any", ConstantGateway(GATEWAY, folder / GATEWAY))
        trust = signing.trust(folder, GATEWAY)
        await Agent(workshop, client, Backoff(), lambda _connected: None, trust).run()


if __name__ == "__main__":
    logs.configure("json")
    keep_on_the_heap(GIB)
    who, where, orchestrator, number = sys.argv[1:]
    if who == "operator":
        asyncio.run(_operate(Path(where), orchestrator, int(number)))
    else:
        asyncio.run(_take_part(Path(where), orchestrator, float(number)))
