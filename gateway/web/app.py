"""The page as an ASGI application, which answers to the names of this machine alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from common.config import is_loopback
from common.web.app import Refusals, page_app
from common.web.stream import Events
from gateway.web.pages import page
from gateway.web.site import NotSignedIn

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.web.site import Site

STATUS: dict[type[Exception], int] = {NotSignedIn: 401}
BUG = "the gateway has a bug; its log says more"
MISDIRECTED = 421
_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[0-9a-z.-]+))(?::[0-9]+)?")


def app_of(site: Site) -> ASGIApp:
    """Return the application that shows `site`."""
    routes = [
        Route("/", site.home),
        Route("/events", Events(site.following, NotSignedIn)),
        Route("/switch", site.ask_to_turn),
        Route("/pause", site.pause, methods=["POST"]),
        Route("/resume", site.resume, methods=["POST"]),
        Route("/sign-in", site.ask_to_sign_in),
        Route("/sign-in", site.sign_in, methods=["POST"]),
        Route("/sign-out", site.sign_out, methods=["POST"]),
    ]
    refusals, bug = Refusals(site.session, site.refusal, STATUS), page("signed_out", problem=BUG)
    return page_app(routes, refusals, bug=bug, within=[Middleware(_OnlyHere)])


class _OnlyHere:
    """Turns away requests for any other name: a page elsewhere may lead its own one to us."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what was asked of this machine, by whatever port people came."""
        if not is_loopback(_named(Headers(scope=scope).get("host", ""))):
            text = "this page is at 127.0.0.1, localhost or [::1], and by no other name\n"
            await PlainTextResponse(text, MISDIRECTED)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _named(host: str) -> str:
    """Return the name that was asked for, without its port; empty: it is none."""
    found = _HOST.fullmatch(host.lower())
    return found["v6"] or found["name"] if found else ""
