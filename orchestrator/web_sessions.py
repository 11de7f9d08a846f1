"""Who is signed in to the page: one-time links, and the sessions that they become.

    (nothing) --CreateWebLink--> link --opened and confirmed, once--> session --> ended
                                  |  LINK_S passed, or used              |  its time passed, signed
                                  v                                      v  out, revoked
                              (nothing)                              (nothing)

All of it is in memory, and of secrets only their hashes: a restart signs everybody out.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from common.errors import ConflictError, LimitReached
from orchestrator.auth import Person, check_person
from orchestrator.callers import Unauthenticated

if TYPE_CHECKING:
    from common.clock import Clock
    from common.tls import Identity
    from orchestrator.callers import OpenCall

LINK_S = 300
MOST_LINKS = 8  # of one person, unused: the oldest goes
MOST_SESSIONS = 16  # of one person: the oldest ends
MOST_STREAMS = 8  # of one session
SECRET_BYTES = 32


class NoPage(ConflictError):
    """A link was asked for, and no page is served."""

    field = "web.address"

    def __init__(self) -> None:
        super().__init__(
            "this orchestrator serves no page: its operator can add a table [web] to "
            "orchestrator.toml and start it again"
        )


class NotSignedIn(Unauthenticated):
    """No session stands behind a request of a browser."""

    def __init__(self) -> None:
        super().__init__(
            "you are not signed in, or no longer: open a link that `fedgate web link` prints"
        )


class LinkRefused(Unauthenticated):
    """A link is not one, was used, or is too old."""

    def __init__(self) -> None:
        super().__init__(
            f"this link was used, or is older than {LINK_S // 60} minutes, or never was one: ask "
            "for another one with `fedgate web link`"
        )


class TooManyPages(LimitReached):
    """A session follows as many pages as it may."""

    def __init__(self) -> None:
        super().__init__(
            f"{MOST_STREAMS} pages of this session follow what happens: close one", wait_s=5.0
        )


@dataclass(eq=False)
class WebSession:
    """Somebody who is signed in, for as long as the call that asked for the link could go on."""

    person: Person
    origin: OpenCall  # of which a session has certificate or token
    ends: float  # on the orchestrator's clock
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(SECRET_BYTES))
    streams: int = 0

    def check(self, method: str, federation: str) -> Identity:
        """Return as whom the session may call `method`; raise RoleRefused."""
        return check_person(self.person, method, federation, by="session")


@dataclass(frozen=True)
class _Link:
    person: Person
    origin: OpenCall
    ends: float


class WebSessions:
    """Links that were made, and sessions that go on; lives on the event loop."""

    def __init__(self, clock: Clock, lifetime_s: float) -> None:
        """Let sessions last for `lifetime_s`; there is no page yet."""
        self.url = ""  # of the page, without a slash at its end, once it is served
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._links: OrderedDict[str, _Link] = OrderedDict()
        self._sessions: OrderedDict[str, WebSession] = OrderedDict()

    def create_link(self, call: OpenCall) -> tuple[str, int]:
        """Return a link that signs in whoever makes `call`, and its seconds; raise NoPage."""
        if not self.url or call.caller is None:
            raise NoPage
        self._forget()
        caller, now = call.caller, self._clock.now()
        person = Person(caller.name, call.roles or frozenset({caller.role}), now)
        _make_room(self._links, person.name, MOST_LINKS)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        self._links[_hash(secret)] = _Link(person, call, now + LINK_S)
        return f"{self.url}/sign-in?token={secret}", LINK_S

    def whose(self, token: str) -> Person:
        """Return whom a link signs in, without using it up; raise LinkRefused."""
        self._forget()
        if (link := self._links.get(_hash(token))) is None:
            raise LinkRefused
        return link.person

    def sign_in(self, token: str) -> tuple[str, float]:
        """Use a link up; return the secret of a new session and how long it lasts, in seconds.

        Raises:
            LinkRefused: the link is not one any more.
        """
        self._forget()
        if (link := self._links.pop(_hash(token), None)) is None:
            raise LinkRefused
        _make_room(self._sessions, link.person.name, MOST_SESSIONS)
        secret = secrets.token_urlsafe(SECRET_BYTES)
        ends = self._clock.now() + self._lifetime_s
        self._sessions[_hash(secret)] = WebSession(link.person, link.origin, ends)
        return secret, self._lifetime_s

    def session(self, secret: str) -> WebSession:
        """Return the session of that secret; raise NotSignedIn."""
        session = self._sessions.get(_hash(secret))
        if session is None or session.ends <= self._clock.now():
            raise NotSignedIn
        return session

    def goes_on(self, session: WebSession) -> bool:
        """Whether a session has not ended."""
        is_known = any(each is session for each in self._sessions.values())
        return is_known and session.ends > self._clock.now()

    def sign_out(self, secret: str) -> None:
        """End a session, and what it follows; one that is none stays none."""
        self._sessions.pop(_hash(secret), None)

    def _forget(self) -> None:
        """Forget what has lapsed."""
        now = self._clock.now()
        for held in (self._links, self._sessions):
            for key in [key for key, each in held.items() if each.ends <= now]:
                del held[key]


def _make_room(
    held: OrderedDict[str, _Link] | OrderedDict[str, WebSession], name: str, most: int
) -> None:
    """Let the oldest of a person's go where there are as many as there may be."""
    theirs = [key for key, each in held.items() if each.person.name == name]
    for key in theirs[: max(0, len(theirs) - most + 1)]:
        held.pop(key)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
