"""What the page shows, and the one thing that it does: pause the gateway, and let it go on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import structlog
from starlette.responses import HTMLResponse, RedirectResponse, Response

from common.errors import PermissionRefused
from common.web.forms import check_csrf, form_of
from common.web.sessions import Session, Sessions, set_cookie
from common.web.stream import Follow
from gateway.charges import LedgerUnreadable
from gateway.egress import BESIDE, MANIFEST
from gateway.egress_rules import EgressClass
from gateway.egress_tally import Count
from gateway.web.pages import fragment, page
from gateway.web_links import LINK_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from markupsafe import Markup
    from starlette.requests import Request

    from common.clock import Clock
    from gateway.egress_tally import Tally
    from gateway.pause import Pause
    from gateway.web.account import Ledgers
    from gateway.web.notes import Notes
    from gateway.web_links import Links

log = structlog.get_logger()

SITE = "site"  # all who come are the site's: whoever may write into the state folder
SiteSession: TypeAlias = Session[str]


class NotSignedIn(PermissionRefused):
    """No session stands behind a request of a browser."""

    def __init__(self) -> None:
        super().__init__(
            "you are not signed in, or no longer: open a link that `fedgate-gateway web link` "
            "prints"
        )


class LinkRefused(NotSignedIn):
    """A link is not one, was used, or is too old."""

    def __init__(self) -> None:
        PermissionRefused.__init__(
            self,
            f"this link was used, or is older than {LINK_S // 60} minutes, or never was one: "
            "`fedgate-gateway web link` prints another one",
        )


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is signed in."""

    session: SiteSession


@dataclass(frozen=True)
class Shown:
    """Where everything that is shown comes from."""

    notes: Notes
    tally: Tally
    pause: Pause
    ledgers: Ledgers
    is_seeded: bool

    async def parts(self) -> dict[str, Markup]:
        """Return the parts of the page as things stand, by the id of their element."""
        state = fragment(
            "state", notes=self.notes, is_paused=self.pause.is_on, since=self.pause.since
        )
        made = {
            "state": state,
            "asked": fragment("asked", plans=self.notes.asked.plans),
            "left": fragment("left", **self._left()),
        }
        try:
            account = await self.ledgers.account(self.notes.changes)
        except LedgerUnreadable as error:
            return {**made, "ledger": fragment("no_ledger", problem=str(error))}
        ledger = fragment("ledger", account=account, is_seeded=self.is_seeded)
        return {**made, "ledger": ledger}

    def _left(self) -> dict[str, object]:
        kinds = dict.fromkeys(EgressClass, Count())
        fields = [(entry, self.tally.of(entry.field)) for entry in MANIFEST.values()]
        for entry, count in fields:
            kinds[entry.kind] += count
        return {
            "kinds": {kind: count for kind, count in kinds.items() if kind != EgressClass.MASKED},
            "fields": sorted(fields, key=lambda each: -each[1].byte_length),
            "total": self.tally.total,
            "begun": self.notes.begun,
            "beside": BESIDE,
        }


@dataclass
class Site:
    """Answers requests of people who are signed in, and of those who want to be."""

    shown: Shown
    sessions: Sessions[str]
    links: Links
    clock: Clock
    url: str
    closing: asyncio.Event  # of the server

    @property
    def cookie(self) -> str:
        """What the cookie is called: those of one host are the same on all of its ports."""
        return f"fedgate-gateway-{self.url.rpartition(':')[2]}"

    def session(self, request: Request) -> SiteSession:
        """Return the session behind a request; raise NotSignedIn."""
        session = self.sessions.find(request.cookies.get(self.cookie))
        if session is None:
            raise NotSignedIn
        return session

    def refusal(self, request: Request, error: Exception) -> str:
        """Return the page that says why; who is not signed in sees how to be, and no more."""
        is_signed_in = self.sessions.find(request.cookies.get(self.cookie)) is not None
        return page("problem" if is_signed_in else "signed_out", problem=str(error))

    async def home(self, request: Request) -> Response:
        """Show everything."""
        visit = Visit(self.session(request))
        shown = self.shown
        parts = await shown.parts()
        return HTMLResponse(page("home", visit=visit, parts=parts, gateway=shown.notes.gateway))

    async def ask_to_turn(self, request: Request) -> Response:
        """Ask once more before the gateway is paused, or goes on."""
        visit = Visit(self.session(request))
        is_on = self.shown.pause.is_on
        gateway = self.shown.notes.gateway
        return HTMLResponse(page("switch", visit=visit, is_paused=is_on, gateway=gateway))

    async def pause(self, request: Request) -> Response:
        """Begin no round from now on."""
        await self._signed_form(request)
        await asyncio.to_thread(self.shown.pause.turn_on, self.clock.wall())
        log.info("paused", by="the page")
        return self._turned()

    async def resume(self, request: Request) -> Response:
        """Take part again."""
        await self._signed_form(request)
        await asyncio.to_thread(self.shown.pause.turn_off)
        log.info("resumed", by="the page")
        return self._turned()

    async def ask_to_sign_in(self, request: Request) -> Response:
        """Show what a link does; opening it alone uses nothing up, as others may look first."""
        token = request.query_params.get("token", "")
        if not token:
            return HTMLResponse(page("signed_out", problem=""))
        if not self.links.is_good(token, self.clock.wall()):
            raise LinkRefused
        return HTMLResponse(page("sign_in", token=token, gateway=self.shown.notes.gateway))

    async def sign_in(self, request: Request) -> Response:
        """Use a link up, and begin a session."""
        fields = await form_of(request, self.url)
        if not self.links.use(fields.get("token", ""), self.clock.wall()):
            raise LinkRefused
        response = RedirectResponse("/", 303)
        lasts_s = self.sessions.lifetime_s
        secret = self.sessions.begin(SITE, SITE)
        set_cookie(response, self.cookie, secret, lasts_s=lasts_s, secure=False)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        await self._signed_form(request)
        self.sessions.end(request.cookies[self.cookie])
        response = RedirectResponse("/sign-in", 303)
        set_cookie(response, self.cookie, "", lasts_s=0, secure=False)
        return response

    @asynccontextmanager
    async def following(self, request: Request) -> AsyncIterator[Follow]:
        """Lend what follows the page inside the block."""
        session = self.session(request)
        with session.following():
            yield Follow(
                look=self.shown.parts,
                rung=lambda: self.shown.notes.rung,
                has_ended=lambda: False,
                goes_on=lambda: self.sessions.goes_on(session),
                closing=self.closing,
            )

    async def _signed_form(self, request: Request) -> None:
        """Read a form of this very session; raise ForeignForm."""
        session = self.session(request)
        fields = await form_of(request, self.url)
        check_csrf(fields.get("csrf", ""), session.csrf)

    def _turned(self) -> Response:
        self.shown.notes.ring()
        return RedirectResponse("/", 303)
