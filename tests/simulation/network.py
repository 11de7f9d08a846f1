"""A network between gateways and orchestrators: slow, lossy, cut, and never wrong about bytes.

It fails as gRPC over TCP does. Messages of one call keep their order, calls overtake each other;
what is lost, breaks the call; a peer that is silent for KEEPALIVE_S is given up by the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from random import Random
from typing import Any

import grpc

from common.channel import _CLASSES, CALL_TIMEOUT_S
from common.errors import FederationError, UnavailableError
from common.protocol import Chunk
from orchestrator.rpc_errors import status_of
from tests.simulation.faults import Fault, Faults
from tests.simulation.history import History
from tests.simulation.loop import TICK_S, Process, SimulatedLoop

KEEPALIVE_S = 15.0  # until a ping that nobody answers breaks a connection


class Link:
    """What lies between one gateway's machine and the orchestrators'."""

    def __init__(self) -> None:
        self.slow_s = 0.0  # added to each message
        self.blocked = {True: 0.0, False: 0.0}  # until when; True: towards the orchestrator
        self.connection: Connection | None = None
        self.latest_call = 0.0  # arrival of the last of its calls


class Connection:
    """One gateway's process and one orchestrator's, and the calls between them."""

    def __init__(self, network: Network, link: Link, client: Process, server: Process) -> None:
        self.network = network
        self.link = link
        self.ends = {True: server, False: client}
        self.open = {True: True, False: True}  # as each end knows
        self.calls: list[Call] = []  # all that were ever made
        for end, process in self.ends.items():
            process.at_end.append(lambda end=end: self.ended(end))

    @property
    def usable(self) -> bool:
        return all(self.open.values()) and self.ends[True].alive

    def ended(self, dead: bool) -> None:
        """The process at one end is no more: the other hears of it, or finds out."""
        heard_s = self.network.random.choice((0.01, 0.01, KEEPALIVE_S))
        self.network.world_later(heard_s, self.give_up, not dead)

    def give_up(self, end: bool) -> None:
        """Let one end know that the connection is lost, and the other somewhat later."""
        for side, wait_s in ((end, 0.0), (not end, 0.05)):
            if self.open[side]:
                self.open[side] = False
                self.ends[side].call_later(wait_s, self._lost, side)
        if self.link.connection is self:
            self.link.connection = None

    def _lost(self, end: bool) -> None:
        for call in self.calls:
            call.lost(end)


class Lane:
    """Messages of one call in one direction: they arrive in order."""

    def __init__(self, connection: Connection, *, up: bool) -> None:
        self._connection = connection
        self._up = up
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._last = 0.0

    def send(self, receive: Callable[..., None], *args: object, extra_s: float = 0.0) -> float:
        """Have `receive` called at the other end, unless this one is dead; return when."""
        network = self._connection.network
        if not self._connection.ends[not self._up].alive:
            return network.loop.time()
        delay_s = network.delay(self._connection.link) + extra_s
        self._last = max(network.loop.time() + delay_s, self._last + TICK_S)
        self._queue.append((receive, args))
        network.loop.call_at(self._last, self._arrive, context=network.loop.world.context.copy())
        return self._last

    def _arrive(self) -> None:
        connection, network = self._connection, self._connection.network
        until = connection.link.blocked[self._up]
        if until > network.loop.time():
            network.loop.call_at(until + TICK_S, self._arrive)
            return
        receive, args = self._queue.popleft()
        if connection.open[self._up]:
            connection.ends[self._up].call_later(0.0, receive, *args)


class Pipe:
    """What has arrived at one end of a call."""

    def __init__(self) -> None:
        self._items: deque[tuple[str, Any]] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, kind: str, value: object = None) -> None:
        self._items.append((kind, value))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> tuple[str, Any]:
        while not self._items:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._items.popleft()

    async def messages(self) -> AsyncIterator[Any]:
        """Yield messages until their end; raise what came in the place of one."""
        while True:
            kind, value = await self.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value


class Call:
    """One call: what the gateway hears, what the orchestrator hears, and who serves it."""

    def __init__(self, connection: Connection, name: str, args: tuple[Any, ...]) -> None:
        self.connection = connection
        self.name = name
        self.args = args
        self.up = Lane(connection, up=True)
        self.down = Lane(connection, up=False)
        self.answers = Pipe()
        self.requests = Pipe()
        self.server: asyncio.Task[None] | None = None
        self.is_over = False
        connection.calls.append(self)

    def lost(self, end: bool) -> None:
        """Tell one end that the other is gone."""
        if not end:
            self.answers.put("error", UnavailableError(f"{self.name}: the connection was lost"))
        elif self.server is not None:
            self.server.cancel()
        else:
            self.is_over = True  # it may be under way: nobody serves it

    def abandon(self) -> None:
        """The gateway has what it wanted, or has gone: the orchestrator's part is cancelled."""
        if not self.is_over and self.connection.ends[False].alive:
            self.is_over = True
            self.up.send(self.lost, True)

    def break_off(self) -> None:
        """Break this call alone, at both ends."""
        self.connection.network.world_later(
            0.01, self.connection.ends[False].call_later, 0.0, self.lost, False
        )
        self.up.send(self.lost, True)


class Network:
    """Every link, and which orchestrator answers at the federation's address."""

    def __init__(
        self, loop: SimulatedLoop, random: Random, faults: Faults, history: History
    ) -> None:
        self.loop = loop
        self.random = random
        self.faults = faults
        self.history = history
        self.links: dict[str, Link] = {}
        self.serving: Process | None = None
        self.programs: dict[Process, Any] = {}  # the Orchestrator of each process

    def world_later(self, delay_s: float, work: Callable[..., None], *args: object) -> None:
        self.loop.world.call_later(delay_s, work, *args)

    def delay(self, link: Link) -> float:
        delay_s = self.random.uniform(0.002, 0.03)
        if link.slow_s:
            delay_s += self.random.uniform(0.0, link.slow_s)
        if self.faults.strikes(Fault.DELAY):
            delay_s += self.random.uniform(1.0, 20.0)
        return delay_s

    def block(self, name: str, seconds: float, *, up: bool, down: bool) -> None:
        """Cut a gateway off for a while; a connection that is silent too long breaks."""
        link, until = self.links[name], self.loop.time() + seconds
        for direction, cut in ((True, up), (False, down)):
            if cut:
                link.blocked[direction] = max(link.blocked[direction], until)
        if seconds > KEEPALIVE_S:
            self.world_later(KEEPALIVE_S, self._ping, link, link.connection)

    def unanswered(self, process: Process) -> None:
        """A process was paused: whoever is connected to it gives up after a while."""
        for link in self.links.values():
            connection = link.connection
            if connection is not None and process in connection.ends.values():
                self.world_later(KEEPALIVE_S, self._pinged, connection, process)

    def _ping(self, link: Link, connection: Connection | None) -> None:
        if connection is not None and max(link.blocked.values()) > self.loop.time():
            connection.give_up(self.random.random() < 0.5)

    def _pinged(self, connection: Connection, process: Process) -> None:
        if process.paused_until > self.loop.time():
            connection.give_up(process is connection.ends[False])

    def connect(self, name: str, client: Process) -> Connection:
        """Return the gateway's connection, a new one if need be; raise UnavailableError."""
        if self.faults.strikes(Fault.LOSS_BEFORE):
            raise UnavailableError("lost on the way")
        link = self.links[name]
        old = link.connection
        if old is not None and old.usable and old.ends[False] is client:
            return old
        is_cut = max(link.blocked.values()) > self.loop.time()
        if self.serving is None or is_cut:
            raise UnavailableError("nobody answers at the orchestrator's address")
        link.connection = Connection(self, link, client, self.serving)
        return link.connection

    def serve(self, call: Call, gateway: str) -> None:
        """Begin an orchestrator's part of a call, in its process."""
        server = call.connection.ends[True]
        if call.is_over and not call.connection.open[True]:
            return
        work = self._stream(call, gateway) if call.name in STREAMS else self._answer(call, gateway)
        call.server = server.spawn(work, f"{call.name} of {gateway}")

    async def _answer(self, call: Call, gateway: str) -> None:
        server = call.connection.ends[True]
        seen = self.programs[server].seen_by(gateway)
        args = call.args
        if call.name == "submit_update":
            args = (*args, call.requests.messages())
        try:
            if call.name == "get_ledger_head":
                result = await seen.get_ledger_head(insecure_deterministic=False)
            else:
                result = await getattr(seen, call.name)(*args)
        except Exception as error:  # noqa: BLE001  # as the interceptor does
            self.history.acted(server, gateway, call.name, call.args, error)
            call.down.send(call.answers.put, "error", self._as_heard(server, error))
        else:
            self.history.acted(server, gateway, call.name, call.args, result)
            call.down.send(call.answers.put, "message", result)

    async def _stream(self, call: Call, gateway: str) -> None:
        server = call.connection.ends[True]
        stream = getattr(self.programs[server].seen_by(gateway), call.name)(*call.args)
        try:
            async for part in stream:
                if self.faults.strikes(Fault.STREAM_BREAK):
                    call.break_off()
                self.history.acted(server, gateway, call.name, call.args, part)
                call.down.send(call.answers.put, "message", part)
        except Exception as error:  # noqa: BLE001  # as the interceptor does
            self.history.acted(server, gateway, call.name, call.args, error)
            call.down.send(call.answers.put, "error", self._as_heard(server, error))
        else:
            call.down.send(call.answers.put, "end")
        finally:
            with suppress(RuntimeError):
                await stream.aclose()

    def _as_heard(self, server: Process, error: Exception) -> FederationError:
        """Return what the gateway's channel makes of an error."""
        if not isinstance(error, FederationError):
            self.history.bug(server, error)
            return UnavailableError("the orchestrator has a bug; its log says more")
        status = status_of(error)
        code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
        return _CLASSES.get(code, UnavailableError)(status.message)


STREAMS = ("watch", "fetch_weights")


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

    def watch(self, lease, kept_runs):
        return _Heard(self, "watch", (lease, tuple(kept_runs)))

    def fetch_weights(self, digest, offset):
        return _Heard(self, "fetch_weights", (digest, offset))

    async def submit_update(self, header, chunks):
        """Send chunks as they come; a copy of the call may carry them too."""
        calls = await self._begin("submit_update", header)
        sender = self._process.spawn(self._send(calls, chunks), "chunks")
        try:
            return await self._heard(calls[0])
        finally:
            sender.cancel()
            for call in calls:
                call.abandon()  # the copy too: its chunks come no more

    async def _send(self, calls: list[Call], chunks) -> None:
        async for chunk in chunks:
            if self._network.faults.strikes(Fault.STREAM_BREAK):
                for call in calls:
                    call.break_off()
                return
            copy = Chunk(chunk.offset, bytes(chunk.data))
            for call in calls:
                call.up.send(call.requests.put, "message", copy)
        for call in calls:
            call.up.send(call.requests.put, "end")

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
