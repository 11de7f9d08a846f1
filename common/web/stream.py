"""Server-sent events: the parts of a page that have changed, soon after they did."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import StreamingResponse

from common.errors import FederationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from markupsafe import Markup
    from starlette.types import Message, Receive, Scope, Send

PAUSE_S = 0.2  # between two messages: what happens meanwhile is told together
TICK_S = 0.5  # what no event tells of, such as bytes that came
ENDED_S = 60.0  # that a run which has ended is followed, for scores that come afterwards


@dataclass(frozen=True)
class Follow:
    """What is followed, and for how long."""

    look: Callable[[], Awaitable[dict[str, Markup]]]  # returns the parts of the page as they are
    rung: Callable[[], asyncio.Event]  # returns what is set at the next change
    has_ended: Callable[[], bool]  # whether nothing is expected any more
    goes_on: Callable[[], bool]  # whether the reader may go on reading
    closing: asyncio.Event  # of the server


class Events:
    """Answers with server-sent events, for as long as who follows them may."""

    def __init__(
        self,
        following: Callable[[Request], AbstractAsyncContextManager[Follow]],
        signed_out: type[FederationError],
    ) -> None:
        """Follow what `following` lends; `signed_out` is what it raises in whoever has to go."""
        self._following = following
        self._signed_out = signed_out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what changes; a refusal in between ends it, and the next request hears why."""
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            async with self._following(Request(scope, receive)) as follow:
                answer = StreamingResponse(changes(follow), media_type="text/event-stream")
                await answer(scope, receive, noting)
        except self._signed_out:
            if not has_begun:
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def changes(follow: Follow) -> AsyncIterator[bytes]:
    """Yield messages with the parts of a page that have changed, each soon after it did."""
    sent: dict[str, Markup] = {}
    quiet_s = 0.0
    while follow.goes_on() and not follow.closing.is_set() and quiet_s < ENDED_S:
        bell = follow.rung()
        try:
            parts = await follow.look()
        except FederationError:
            return  # the browser comes again, and is told why
        fresh = {name: each for name, each in parts.items() if sent.get(name) != each}
        if fresh:
            yield _message("parts", list(fresh.values()))
            sent, quiet_s = parts, 0.0
        await asyncio.sleep(PAUSE_S)
        await _first_of(bell, follow.closing)
        quiet_s = quiet_s + TICK_S if follow.has_ended() and not bell.is_set() else 0.0
        yield b": still here\n\n"  # so that a reader who went is noticed
    if quiet_s >= ENDED_S:
        yield _message("end", [])


async def _first_of(*events: asyncio.Event) -> None:
    """Return once one of `events` is set, or after TICK_S."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _message(kind: str, data: list[Markup]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
