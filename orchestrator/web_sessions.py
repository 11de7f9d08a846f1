"""Who is signed in to the page: one-time links, and the sessions that they become.

    (nothing) --CreateWebLink--> link --opened and confirmed, once--> session --> ended
                                  |  LINK_S passed, or used              |  its time passed, signed
                                  v                                      v  out, revoked
                              (nothing)                              (nothing)

All of it is in memory, and of secrets only their hashes: a restart signs everybody out.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from common.errors import ConflictError
from common.web.sessions import Session, Sessions, fresh_secret, hash_of
from orchestrator.auth import Person, check_person
from orchestrator.callers import Unauthenticated

if TYPE_CHECKING:
    from common.clock import Clock
    from common.tls import Identity
    from orchestrator.callers import OpenCall

LINK_S = 300
MOST_LINKS = 8  # of one person, unused: the oldest goes


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


@dataclass(frozen=True)
class SignedIn:
    """Somebody who is signed in, for as long as the call that asked for the link could go on."""

    person: Person
    origin: OpenCall  # of which a session has certificate or token

    def check(self, method: str, federation: str) -> Identity:
        """Return as whom the session may call `method`; raise RoleRefused."""
        return check_person(self.person, method, federation, by="session")


WebSession: TypeAlias = Session[SignedIn]


@dataclass(frozen=True)
class _Link:
    who: SignedIn
    ends: float


class WebSessions:
    """Links that were made, and sessions that go on; lives on the event loop."""

    def __init__(self, clock: Clock, lifetime_s: float) -> None:
        """Let sessions last for `lifetime_s`; there is no page yet."""
        self.url = ""  # of the page, without a slash at its end, once it is served
        self._clock = clock
        self._links: OrderedDict[str, _Link] = OrderedDict()
        self._sessions: Sessions[SignedIn] = Sessions(clock, lifetime_s)

    def create_link(self, call: OpenCall) -> tuple[str, int]:
        """Return a link that signs in whoever makes `call`, and its seconds; raise NoPage."""
        return f"{self.url}/sign-in?token={self.token_for(call)}", LINK_S

    def token_for(self, call: OpenCall) -> str:
        """Return the secret of such a link; raise NoPage."""
        if not self.url or call.caller is None:
            raise NoPage
        self._forget()
        caller, now = call.caller, self._clock.now()
        person = Person(caller.name, call.roles or frozenset({caller.role}), now)
        theirs = [key for key, each in self._links.items() if each.who.person.name == person.name]
        for key in theirs[: max(0, len(theirs) - MOST_LINKS + 1)]:
            self._links.pop(key)
        secret = fresh_secret()
        self._links[hash_of(secret)] = _Link(SignedIn(person, call), now + LINK_S)
        return secret

    def whose(self, token: str) -> Person:
        """Return whom a link signs in, without using it up; raise LinkRefused."""
        self._forget()
        if (link := self._links.get(hash_of(token))) is None:
            raise LinkRefused
        return link.who.person

    def sign_in(self, token: str) -> tuple[str, float]:
        """Use a link up; return the secret of a new session and how long it lasts, in seconds.

        Raises:
            LinkRefused: the link is not one any more.
        """
        self._forget()
        if (link := self._links.pop(hash_of(token), None)) is None:
            raise LinkRefused
        secret = self._sessions.begin(link.who, link.who.person.name)
        return secret, self._sessions.lifetime_s

    def session(self, secret: str | None) -> WebSession:
        """Return the session of that secret; raise NotSignedIn."""
        if (session := self._sessions.find(secret)) is None:
            raise NotSignedIn
        return session

    def goes_on(self, session: WebSession) -> bool:
        """Whether a session has not ended."""
        return self._sessions.goes_on(session)

    def sign_out(self, secret: str) -> None:
        """End a session, and what it follows; one that is none stays none."""
        self._sessions.end(secret)

    def _forget(self) -> None:
        """Forget links that have lapsed."""
        now = self._clock.now()
        for key in [key for key, each in self._links.items() if each.ends <= now]:
            del self._links[key]
