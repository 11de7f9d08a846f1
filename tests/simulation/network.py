"""A network between gateways and orchestrators: slow, lossy, cut, and never wrong about bytes.

It fails as gRPC over TCP does; a peer that is silent for KEEPALIVE_S is given up by the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import grpc

from common.channel import _CLASSES
from common.errors import FederationError, UnavailableError
from common.protocol import UpdateHeader
from orchestrator.rpc_errors import status_of
from tests.simulation.calls import KEEPALIVE_S, Call, Connection, Link
from tests.simulation.faults import Fault, Faults
from tests.simulation.history import History
from tests.simulation.loop import Process, SimulatedLoop

STREAMS = ("watch", "fetch_weights")


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
        self.updates: list[tuple[str, UpdateHeader, bytes]] = []  # that went out whole

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
