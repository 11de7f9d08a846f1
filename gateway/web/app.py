"""The page as an ASGI application, which answers to the names of this machine alone."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from common.config import is_loopback
from common.errors import FederationError
from common.web.answers import NoSuchPage, Sealed, answered_headers, status_of
from common.web.pages import STATIC
from common.web.stream import Events
from gateway.web.pages import page
from gateway.web.site import NotSignedIn, is_signed_in

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gateway.web.site import Site

log = structlog.get_logger()

STATUS: dict[type[Exception], int] = {NotSignedIn: 401}
NOT_FOUND = 404
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
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    broken = HTMLResponse(page("signed_out", problem=BUG), 500)
    return Starlette(
        routes=routes,
        middleware=[Middleware(Sealed, broken=broken), Middleware(_OnlyHere)],
        exception_handlers={
            FederationError: partial(_refused, site),
            HTTPException: partial(_astray, site),
        },
    )


async def _astray(site: Site, request: Request, error: Exception) -> Response:
    """Answer for an address or a method that there is none of, to who is signed in."""
    if not is_signed_in(site, request):
        return await _refused(site, request, NotSignedIn())
    if isinstance(error, HTTPException) and error.status_code != NOT_FOUND:
        return Response(status_code=error.status_code, headers=error.headers)
    return await _refused(site, request, NoSuchPage())


async def _refused(site: Site, request: Request, error: Exception) -> Response:
    """Answer with the sentence of an error; who is not signed in sees how to be, no more."""
    log.info("page_refused", path=request.url.path, reason=type(error).__name__)
    name = "problem" if is_signed_in(site, request) else "signed_out"
    answer = page(name, problem=str(error))
    return HTMLResponse(answer, status_of(error, STATUS), answered_headers(error))


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
