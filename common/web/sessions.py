"""Browsers that are signed in. All of it is in memory, and of secrets only their hashes."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Generic, TypeVar

from common.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

    from common.clock import Clock

MOST_SESSIONS = 16  # of one person: the oldest ends
MOST_STREAMS = 8  # of one session
SECRET_BYTES = 32

WhoT = TypeVar("WhoT")


def fresh_secret() -> str:
    """Return 256 random bits, for an address or a cookie."""
    return secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return sha256(secret.encode()).hexdigest()


class TooManyPages(LimitReached):
    """A session follows as many pages as it may."""

    def __init__(self) -> None:
        super().__init__(
            f"{MOST_STREAMS} pages of this session follow what happens: close one", wait_s=5.0
        )


@dataclass(eq=False)
class Session(Generic[WhoT]):
    """Somebody who is signed in."""

    who: WhoT
    name: str  # of whom only so many sessions go on
    ends: float  # on the process's clock
    csrf: str = field(default_factory=fresh_secret)
    streams: int = 0

    @contextmanager
    def following(self) -> Iterator[None]:
        """Count a page that is followed in the block; raise TooManyPages."""
        if self.streams >= MOST_STREAMS:
            raise TooManyPages
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1


class Sessions(Generic[WhoT]):
    """Sessions that go on; lives on the event loop."""

    def __init__(self, clock: Clock, lifetime_s: float) -> None:
        """Let sessions last for `lifetime_s`."""
        self._clock = clock
        self.lifetime_s = lifetime_s
        self._held: OrderedDict[str, Session[WhoT]] = OrderedDict()

    def begin(self, who: WhoT, name: str) -> str:
        """Begin a session of somebody; return its secret."""
        self._forget()
        theirs = [key for key, each in self._held.items() if each.name == name]
        for key in theirs[: max(0, len(theirs) - MOST_SESSIONS + 1)]:
            self._held.pop(key)
        secret = fresh_secret()
        ends = self._clock.now() + self.lifetime_s
        self._held[hash_of(secret)] = Session(who, name, ends)
        return secret

    def find(self, secret: str | None) -> Session[WhoT] | None:
        """Return the session of that secret, if it goes on."""
        session = self._held.get(hash_of(secret)) if secret else None
        return session if session is not None and self.goes_on(session) else None

    def goes_on(self, session: Session[WhoT]) -> bool:
        """Whether a session has not ended."""
        is_known = any(each is session for each in self._held.values())
        return is_known and session.ends > self._clock.now()

    def end(self, secret: str) -> None:
        """End a session, and what it follows; one that is none stays none."""
        self._held.pop(hash_of(secret), None)

    def _forget(self) -> None:
        """Forget what has lapsed."""
        now = self._clock.now()
        for key in [key for key, each in self._held.items() if each.ends <= now]:
            del self._held[key]


def set_cookie(response: Response, name: str, secret: str, *, lasts_s: float, secure: bool) -> None:
    """Have the browser keep a session's secret, for this page alone; empty: forget it."""
    response.set_cookie(
        name, secret, max_age=int(lasts_s), secure=secure, httponly=True, samesite="strict"
    )
