"""A gateway's client on the simulated network."""

from __future__ import annotations

import asyncio
from typing import Any

from common.channel import CALL_TIMEOUT_S
from common.errors import UnavailableError
from common.protocol import Chunk
from tests.simulation.calls import Call
from tests.simulation.faults import Fault
from tests.simulation.loop import Process
from tests.simulation.network import STREAMS, Network


class SimulatedClient:
    """A `common.client.OrchestratorClient` of one gateway's process."""

    def __init__(self, network: Network, name: str, process: Process) -> None:
        self._network = network
        self._name = name
        self._process = process

    async def register(self, versions):
        return await self._unary("register", versions)

    async def get_config(self, run_id):
        return await self._unary("get_config", run_id)

    async def accept_plan(self, run_id, plan_digest, answer):
        return await self._unary("accept_plan", run_id, plan_digest, answer)

    async def get_upload(self, key, digest):
        return await self._unary("get_upload", key, digest)

    async def decline(self, decline):
        return await self._unary("decline", decline)

    async def get_ledger_head(self, *, insecure_deterministic):
        return await self._unary("get_ledger_head")

    async def get_checkpoint(self, after):
        return await self._unary("get_checkpoint", after)

    def watch(self, lease, kept_runs):
        return _Heard(self, "watch", (lease, tuple(kept_runs)))

    def fetch_weights(self, digest, offset):
        return _Heard(self, "fetch_weights", (digest, offset))

    async def submit_update(self, header, chunks):
        """Send chunks as they come; a copy of the call may carry them too."""
        calls = await self._begin("submit_update", header)
        sender = self._process.spawn(self._send(calls, header, chunks), "chunks")
        try:
            return await self._heard(calls[0])
        finally:
            sender.cancel()
            for call in calls:
                call.abandon()  # the copy too: its chunks come no more

    async def _send(self, calls: list[Call], header, chunks) -> None:
        sent = b""
        async for chunk in chunks:
            if self._network.faults.strikes(Fault.STREAM_BREAK):
                for call in calls:
                    call.break_off()
                return
            copy = Chunk(chunk.offset, bytes(chunk.data))
            sent += copy.data
            for call in calls:
                call.up.send(call.requests.put, "message", copy)
        for call in calls:
            call.up.send(call.requests.put, "end")
        if not header.body.offset:
            self._network.updates.append((self._name, header, sent))

    async def _unary(self, name: str, *args):
        calls = await self._begin(name, *args)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._heard(calls[0])
        except TimeoutError:
            raise UnavailableError(f"{name}: no answer in time") from None
        finally:
            calls[0].abandon()

    async def _heard(self, call: Call):
        kind, value = await call.answers.get()
        is_lost = self._network.faults.strikes(Fault.LOSS_AFTER)
        self._network.history.returned(self._process, self._name, call.name, call.args, value)
        if kind == "error":
            raise value
        if is_lost:
            raise UnavailableError(f"{call.name}: the answer was lost")
        return value

    async def _begin(self, name: str, *args) -> list[Call]:
        """Begin a call, and perhaps a copy of it whose answer nobody hears."""
        network = self._network
        network.history.called(self._process, self._name, name, args)
        try:
            connection = network.connect(self._name, self._process)
        except UnavailableError:
            await asyncio.sleep(network.random.uniform(0.01, 1.0))
            raise
        copies = 1
        if name not in STREAMS and network.faults.strikes(Fault.DUPLICATION):
            copies = 2
        calls = [Call(connection, name, args) for _ in range(copies)]
        for place, call in enumerate(calls):
            late_s = network.random.uniform(0.0, 10.0) if place else 0.0
            self._deliver(call, late_s)
        return calls

    def _deliver(self, call: Call, late_s: float) -> None:
        network, link = self._network, call.connection.link
        when = call.up.send(network.serve, call, self._name, extra_s=late_s)
        if when < link.latest_call:
            network.faults.count(Fault.REORDERING)
        link.latest_call = max(link.latest_call, when)


class _Heard:
    """A stream as the gateway hears it; it begins with the first message that is asked for."""

    def __init__(self, client: SimulatedClient, name: str, args: tuple[Any, ...]) -> None:
        self._client = client
        self._name = name
        self._args = args
        self._call: Call | None = None

    def __aiter__(self) -> _Heard:
        return self

    async def __anext__(self):
        if self._call is None:
            (self._call,) = await self._client._begin(self._name, *self._args)
        try:
            kind, value = await self._call.answers.get()
        except asyncio.CancelledError:
            self._call.abandon()
            raise
        if kind == "message":
            return value
        self._call.abandon()
        if kind == "end":
            raise StopAsyncIteration
        raise value
