"""One connection of a gateway's, its calls, and their messages on the way.

Messages of one call keep their order, calls overtake each other; what is lost, breaks the call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from common.errors import UnavailableError
from tests.simulation.loop import TICK_S, Process

if TYPE_CHECKING:
    from tests.simulation.network import Network

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
