"""The page as an ASGI application: routes, errors, and the headers that every answer has."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from common.errors import FederationError
from common.web.answers import NoSuchPage, Sealed, answered_headers, status_of
from common.web.pages import STATIC
from common.web.stream import Events
from orchestrator.callers import Unauthenticated
from orchestrator.web.pages import page
from orchestrator.web.provider import DONE
from orchestrator.web.starting import Starting

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from orchestrator.web.site import Site

log = structlog.get_logger()

STATUS: dict[type[Exception], int] = {Unauthenticated: 401}
NOT_FOUND = 404
BUG = "the orchestrator has a bug; its log says more"


def app_of(site: Site) -> ASGIApp:
    """Return the application that shows `site`."""
    starting = Starting(site.guard, site.orchestrator, site.four_eyes)
    routes = [
        Route("/", site.runs),
        Route("/events", Events(site.following_runs, Unauthenticated)),
        Route("/runs/{run_id}", site.run),
        Route("/runs/{run_id}/events", Events(site.following_run, Unauthenticated)),
        Route("/runs/{run_id}/rounds", site.rounds),
        Route("/runs/{run_id}/model.json", site.card),
        Route("/runs/{run_id}/model.md", site.card),
        Route("/runs/{run_id}/cancel", site.ask_to_cancel),
        Route("/runs/{run_id}/cancel", site.cancel, methods=["POST"]),
        Route("/start", starting.ask),
        Route("/start", starting.start, methods=["POST"]),
        Route("/records", site.records),
        Route("/sign-in", site.ask_to_sign_in),
        Route("/sign-in", site.sign_in, methods=["POST"]),
        Route("/sign-out", site.sign_out, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    if (provider := site.by_provider) is not None:
        routes += [Route("/sign-in/provider", provider.begin), Route(DONE, provider.end)]
    refused = partial(_refused, site)
    broken = HTMLResponse(page("signed_out", problem=BUG, issuer=""), 500)
    return Starlette(
        routes=routes,
        middleware=[Middleware(Sealed, broken=broken)],
        exception_handlers={FederationError: refused, HTTPException: partial(_astray, site)},
    )


async def _astray(site: Site, request: Request, error: Exception) -> Response:
    """Answer for an address or a method that there is none of, to who is signed in."""
    try:
        site.guard.session(request)
    except FederationError as refusal:
        return await _refused(site, request, refusal)
    if isinstance(error, HTTPException) and error.status_code != NOT_FOUND:
        return Response(status_code=error.status_code, headers=error.headers)
    return await _refused(site, request, NoSuchPage())


async def _refused(site: Site, request: Request, error: Exception) -> Response:
    """Answer with the sentence of an error; who is not signed in sees how to be, no more."""
    code, headers = status_of(error, STATUS), answered_headers(error)
    log.info("page_refused", path=request.url.path, reason=type(error).__name__)
    try:
        site.guard.session(request)
    except FederationError:
        return HTMLResponse(site.signed_out(str(error)), code, headers)
    if isinstance(error, Unauthenticated):
        return HTMLResponse(site.signed_out(str(error)), code, headers)
    return HTMLResponse(page("problem", problem=str(error)), code, headers)
