"""Who may see what on the page: a session stands behind every request, or the sign-in page does.

Each request counts as a call of an RPC: by the same table of roles, within the same quotas, and
for as long as whoever signed in is welcome.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from secrets import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from common.audit import Action
from common.errors import PermissionRefused, RequestError
from common.tls import Identity
from orchestrator.web_sessions import NotSignedIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from orchestrator.auth import Person
    from orchestrator.callers import Callers
    from orchestrator.quotas import Quotas
    from orchestrator.refusals import Refusals
    from orchestrator.web_sessions import WebSession, WebSessions

LONGEST_FORM = 4096  # bytes
FORM_S = 10.0  # until all of it has come

OPERATOR = "/federation.v1.OperatorService"
LIST_RUNS, WATCH_RUN = f"{OPERATOR}/ListRuns", f"{OPERATOR}/WatchRun"
CANCEL_RUN, CREATE_WEB_LINK = f"{OPERATOR}/CancelRun", f"{OPERATOR}/CreateWebLink"
LIST_RECORDS = "/federation.v1.AuditService/ListRecords"


class ForeignForm(PermissionRefused):
    """A form was not sent from a page of this orchestrator."""

    def __init__(self) -> None:
        super().__init__(
            "this was not sent from a page of this orchestrator: go back, load the page again and "
            "send it from there"
        )


class FormTooLong(RequestError):
    """A form is longer than any here."""

    def __init__(self) -> None:
        super().__init__(f"a form has at most {LONGEST_FORM} bytes here, and comes at once")


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is signed in."""

    session: WebSession
    caller: Identity  # in the role in which this is called

    def may(self, method: str, federation: str) -> bool:
        """Whether the visitor may call another method, too."""
        try:
            self.session.check(method, federation)
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
            caller = session.check(method, self.federation)
        except PermissionRefused as error:
            who = _somebody(session.person, self.federation)
            self._quotas.count(who)
            self._refused.note(
                who.uri, Action.CALL, {"method": method, "reason": type(error).__name__}
            )
            raise
        async with self._callers.again(session.origin, caller):
            with self._quotas.call(caller, brings_body=False):
                yield Visit(session, caller)

    def session(self, request: Request) -> WebSession:
        """Return the session behind a request; raise NotSignedIn."""
        secret = request.cookies.get(self.cookie)
        if not secret:
            raise NotSignedIn
        return self.sessions.session(secret)

    async def form(self, request: Request) -> dict[str, str]:
        """Return the fields of a form that a page of ours has sent; raise ForeignForm."""
        origin = request.headers.get("origin")
        ours = {self.sessions.url, f"{request.url.scheme}://{request.headers.get('host', '')}"}
        is_ours = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
        if origin not in ours or not is_ours:
            raise ForeignForm
        body = await _body(request)
        return {name: values[-1] for name, values in parse_qs(body.decode("latin-1")).items()}

    async def signed_form(self, request: Request, session: WebSession) -> dict[str, str]:
        """Return the fields of a form of this very session; raise ForeignForm."""
        fields = await self.form(request)
        if not compare_digest(fields.get("csrf", "").encode(), session.csrf.encode()):
            raise ForeignForm
        return fields

    def count_stranger(self) -> None:
        """Count a try to sign in, with those of everybody who has no name; raise LimitReached."""
        self._quotas.count(None)


async def _body(request: Request) -> bytes:
    body = b""
    try:
        async with asyncio.timeout(FORM_S):
            async for part in request.stream():
                body += part
                if len(body) > LONGEST_FORM:
                    raise FormTooLong
    except TimeoutError:
        raise FormTooLong from None
    return body


def _somebody(person: Person, federation: str) -> Identity:
    return Identity(federation, min(person.roles), person.name)
