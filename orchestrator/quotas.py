"""How much one caller may ask for at a time; whoever asks for more is told how long to wait.

What is counted lives on the event loop, by the caller's name; those who have none yet, and come to
enrol, are counted together.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog

from common.errors import LimitReached, UnavailableError
from common.wire_values import InvalidMessage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

    from common.tls import Identity
    from orchestrator.config import Limits

log = structlog.get_logger()
MessageT = TypeVar("MessageT")

MESSAGES_AT_ONCE = 4  # first messages of one caller on their way in; each may have 4 MiB
SAID_AGAIN_S = 60.0  # between two lines in the log on one caller
KEPT_CALLERS = 1024  # idle ones beyond it are forgotten: their allowance is whole
WAIT_S = 1.0  # what a caller with too many calls open is told to wait


class TooManyRequests(LimitReached):
    """A caller makes calls faster than it may."""

    def __init__(self, caller: Identity | None, limits: Limits, wait_s: float) -> None:
        super().__init__(
            f"{_named(caller)} makes more than {limits.requests_per_s:g} calls a "
            f"second (limits.requests_per_s, {limits.requests_at_once} at once): try again in "
            f"{wait_s:.2f} s",
            wait_s=wait_s,
        )


class TooManyStreams(LimitReached):
    """A caller has more calls under way than it may."""

    def __init__(self, caller: Identity | None, limits: Limits) -> None:
        super().__init__(
            f"{_named(caller)} has {limits.streams} calls under way "
            f"(limits.streams): end one, try again in {WAIT_S:g} s",
            wait_s=WAIT_S,
        )


class TooManyUploads(LimitReached):
    """A caller sends more bodies at a time than it may."""

    def __init__(self, caller: Identity | None, limits: Limits) -> None:
        super().__init__(
            f"{_named(caller)} sends {limits.uploads} bodies already "
            f"(limits.uploads): end one, try again in {WAIT_S:g} s",
            wait_s=WAIT_S,
        )


class SilentCall(UnavailableError):
    """A call was begun and its first message did not come."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(
            f"the first message of the call did not come within {limit_s:g} s "
            "(limits.first_message_s): call again"
        )


class NoMessage(InvalidMessage):
    """A call ended before its only message."""

    def __init__(self, method: str) -> None:
        super().__init__(method, field="request", problem="one message must come, none did")


@dataclass
class Bucket:
    """Tokens that come back with time; a request takes one."""

    rate: float  # a second
    size: int
    tokens: float
    at: float = 0.0  # when they were counted

    def take(self, now: float) -> float:
        """Take a token; return 0, or the seconds until there is one again if there is none."""
        self._fill(now)
        if self.tokens < 1.0:
            return (1.0 - self.tokens) / self.rate
        self.tokens -= 1.0
        return 0.0

    def is_full(self, now: float) -> bool:
        """Whether nothing was asked for lately."""
        self._fill(now)
        return self.tokens >= self.size

    def _fill(self, now: float) -> None:
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.rate)
        self.at = now


class Use:
    """What one caller has under way."""

    def __init__(self, limits: Limits, now: float, messages: int) -> None:
        size = limits.requests_at_once
        self.bucket = Bucket(limits.requests_per_s, size, size, now)
        self.streams = 0
        self.uploads = 0
        self.messages = asyncio.Semaphore(messages)
        self.said_at = -SAID_AGAIN_S
        self.unsaid = 0


class Quotas:
    """Counts what each caller has under way, and refuses what goes beyond the limits."""

    def __init__(self, limits: Limits, now: Callable[[], float] | None = None) -> None:
        """Read time from `now`, by default the running loop's."""
        self._limits = limits
        self._now = now or _loop_time
        self._uses: dict[Identity | None, Use] = {}

    @contextmanager
    def call(self, caller: Identity | None, *, brings_body: bool) -> Iterator[Use]:
        """Count a call while the block lasts.

        Raises:
            TooManyRequests, TooManyStreams, TooManyUploads: it goes beyond a limit.
        """
        use = self.count(caller)
        with self._saying(caller, use):
            if use.streams >= self._limits.streams:
                raise TooManyStreams(caller, self._limits)
            if brings_body and use.uploads >= self._limits.uploads:
                raise TooManyUploads(caller, self._limits)
        use.streams += 1
        use.uploads += brings_body
        try:
            yield use
        finally:
            use.streams -= 1
            use.uploads -= brings_body

    def count(self, caller: Identity | None) -> Use:
        """Count a call, whatever becomes of it; raise TooManyRequests."""
        use = self._use(caller)
        with self._saying(caller, use):
            wait_s = use.bucket.take(self._now())
            if wait_s:
                raise TooManyRequests(caller, self._limits, wait_s)
        return use

    async def only_message(
        self, use: Use, requests: AsyncIterator[MessageT], method: str
    ) -> MessageT:
        """Return the message of a call that brings one; raise SilentCall or NoMessage."""
        first = await self._first(use, requests)
        if first is None:
            raise NoMessage(method)
        return first

    async def messages(
        self, use: Use, requests: AsyncIterator[MessageT]
    ) -> AsyncGenerator[MessageT]:
        """Yield the messages of a call, of which the first must come soon; raise SilentCall."""
        first = await self._first(use, requests)
        if first is not None:
            yield first
            async for request in requests:
                yield request

    async def _first(self, use: Use, requests: AsyncIterator[MessageT]) -> MessageT | None:
        limit_s = self._limits.first_message_s
        try:
            async with asyncio.timeout(limit_s), use.messages:
                return await anext(requests, None)
        except TimeoutError:
            raise SilentCall(limit_s) from None

    def _use(self, caller: Identity | None) -> Use:
        use = self._uses.get(caller)
        if use is None:
            now = self._now()
            if len(self._uses) >= KEPT_CALLERS:
                self._forget_idle(now)
            # those without a name send 16 KiB at most, and a few that are silent hold up no other
            messages = self._limits.streams if caller is None else MESSAGES_AT_ONCE
            use = self._uses[caller] = Use(self._limits, now, messages)
        return use

    def _forget_idle(self, now: float) -> None:
        self._uses = {
            caller: use
            for caller, use in self._uses.items()
            if use.streams or not use.bucket.is_full(now)
        }

    @contextmanager
    def _saying(self, caller: Identity | None, use: Use) -> Iterator[None]:
        """Log a refusal inside the block, not each of a flood."""
        try:
            yield
        except LimitReached as error:
            use.unsaid += 1
            now = self._now()
            if now - use.said_at >= SAID_AGAIN_S:
                log.warning("limited", caller=_named(caller), times=use.unsaid, why=str(error))
                use.said_at, use.unsaid = now, 0
            raise


def _named(caller: Identity | None) -> str:
    return "whoever has no name yet" if caller is None else f"{caller.role} {caller.name!r}"


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
