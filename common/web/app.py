"""A page as an ASGI application: what is refused, and the headers that every answer has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from common.errors import FederationError
from common.web.answers import NoSuchPage, Sealed, answered_headers, status_of
from common.web.pages import STATIC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.types import ASGIApp

log = structlog.get_logger()

NOT_FOUND = 404


@dataclass(frozen=True)
class Refusals:
    """How a side answers what it refuses."""

    check: Callable[[Request], object]  # raises the error of whoever is not signed in
    shown: Callable[[Request, Exception], str]  # returns a page with the sentence of an error
    status: Mapping[type[Exception], int]  # of a side's own errors

    async def astray(self, request: Request, error: Exception) -> Response:
        """Answer for an address or a method that there is none of, to who is signed in."""
        try:
            self.check(request)
        except FederationError as refusal:
            return await self.refused(request, refusal)
        if isinstance(error, HTTPException) and error.status_code != NOT_FOUND:
            return Response(status_code=error.status_code, headers=error.headers)
        return await self.refused(request, NoSuchPage())

    async def refused(self, request: Request, error: Exception) -> Response:
        """Answer with the sentence of an error."""
        log.info("page_refused", path=request.url.path, reason=type(error).__name__)
        code, headers = status_of(error, self.status), answered_headers(error)
        return HTMLResponse(self.shown(request, error), code, headers)


def page_app(
    routes: Sequence[BaseRoute], refusals: Refusals, *, bug: str, within: Sequence[Middleware] = ()
) -> ASGIApp:
    """Return the application of a side's routes; where it has a bug it answers with that page."""
    return Starlette(
        routes=[*routes, Mount("/static", StaticFiles(directory=STATIC))],
        middleware=[Middleware(Sealed, broken=HTMLResponse(bug, 500)), *within],
        exception_handlers={FederationError: refusals.refused, HTTPException: refusals.astray},
    )
