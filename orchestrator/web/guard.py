"""Who may see what on the page: a session stands behind every request, or the sign-in page does.

Each request counts as a call of an RPC: by the same table of roles, within the same quotas, and
for as long as whoever signed in is welcome.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.audit import Action
from common.errors import PermissionRefused
from common.tls import Identity
from common.web.forms import LONGEST_FORM, check_csrf, form_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from orchestrator.auth import Person
    from orchestrator.callers import Callers
    from orchestrator.quotas import Quotas
    from orchestrator.refusals import Refusals
    from orchestrator.web_sessions import WebSession, WebSessions

OPERATOR = "/federation.v1.OperatorService"
LIST_RUNS, WATCH_RUN = f"{OPERATOR}/ListRuns", f"{OPERATOR}/WatchRun"
START_RUN, CANCEL_RUN = f"{OPERATOR}/StartRun", f"{OPERATOR}/CancelRun"
LIST_RECORDS = "/federation.v1.AuditService/ListRecords"


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is signed in."""

    session: WebSession
    caller: Identity  # in the role in which this is called

    @property
    def may_read_records(self) -> bool:
        """Whether the page of the audit log is one of the visitor's."""
        return self.may(LIST_RECORDS)

    def may(self, method: str) -> bool:
        """Whether the visitor may call another method, too."""
        try:
            self.session.who.check(method, self.caller.federation)
        except PermissionRefused:
            return False
        return True


class Guard:
    """Tells who sends a request, and lets in whom the table of roles does."""

    def __init__(
        self,
        federation: str,
        sessions: WebSessions,
        callers: Callers,
        quotas: Quotas,
        refused: Refusals,
    ) -> None:
        """Put on record in `refused` whoever asks for what they may not."""
        self._refused = refused
        self.federation = federation
        self.sessions = sessions
        self._callers = callers
        self._quotas = quotas

    @property
    def cookie(self) -> str:
        """What the cookie is called: those of one host are the same on all of its ports."""
        scheme, _, place = self.sessions.url.partition("://")
        if scheme == "https":
            return "__Host-fedgate"
        return f"fedgate-{place.rpartition(':')[2]}"

    @asynccontextmanager
    async def call(self, request: Request, method: str) -> AsyncIterator[Visit]:
        """Lend the visit of somebody who may call `method`; another one goes on record.

        Raises:
            NotSignedIn: nobody has signed in.
            RoleRefused: they may not call it.
            PersonRevoked, CertificateRevoked, CertificateEnded: they are not welcome any more.
            TooManyRequests, TooManyStreams: they ask for more than they may.
        """
        session = self.session(request)
        try:
            caller = session.who.check(method, self.federation)
        except PermissionRefused as error:
            who = _somebody(session.who.person, self.federation)
            self._quotas.count(who)
            self._refused.note(
                who.uri, Action.CALL, {"method": method, "reason": type(error).__name__}
            )
            raise
        async with self._callers.again(session.who.origin, caller):
            with self._quotas.call(caller, brings_body=False):
                yield Visit(session, caller)

    def session(self, request: Request) -> WebSession:
        """Return the session behind a request; raise NotSignedIn."""
        return self.sessions.session(request.cookies.get(self.cookie))

    async def form(self, request: Request, longest: int = LONGEST_FORM) -> dict[str, str]:
        """Return the fields of a form that a page of ours has sent; raise ForeignForm."""
        return await form_of(request, self.sessions.url, longest)

    async def signed_form(
        self, request: Request, session: WebSession, longest: int = LONGEST_FORM
    ) -> dict[str, str]:
        """Return the fields of a form of this very session; raise ForeignForm."""
        fields = await self.form(request, longest)
        check_csrf(fields.get("csrf", ""), session.csrf)
        return fields

    def count_stranger(self) -> None:
        """Count a try to sign in, with those of everybody who has no name; raise LimitReached."""
        self._quotas.count(None)


def _somebody(person: Person, federation: str) -> Identity:
    return Identity(federation, min(person.roles), person.name)
