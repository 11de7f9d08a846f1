"""The page as an ASGI application: routes, errors, and the headers that every answer has."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from common.errors import (
    ConflictError,
    FederationError,
    LimitReached,
    NotFound,
    PermissionRefused,
    UnavailableError,
)
from orchestrator.callers import Unauthenticated
from orchestrator.web.pages import page
from orchestrator.web.stream import changes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from orchestrator.web.site import Site
    from orchestrator.web.stream import Follow

log = structlog.get_logger()

STATUS: Mapping[type[FederationError], int] = {  # the nearest ancestor counts
    Unauthenticated: 401,
    PermissionRefused: 403,
    NotFound: 404,
    ConflictError: 409,
    LimitReached: 429,
    UnavailableError: 503,
    FederationError: 400,
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with less, browsers hide from us where a form comes from
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
NOT_FOUND = 404
STATIC = Path(__file__).parent / "static"


class NoSuchPage(NotFound):
    """An address leads nowhere."""

    def __init__(self) -> None:
        super().__init__("there is no such page here: begin with the list of runs")


def app_of(site: Site) -> ASGIApp:
    """Return the application that shows `site`."""
    routes = [
        Route("/", site.runs),
        Route("/events", _Events(site.following_runs)),
        Route("/runs/{run_id}", site.run),
        Route("/runs/{run_id}/events", _Events(site.following_run)),
        Route("/runs/{run_id}/rounds", site.rounds),
        Route("/runs/{run_id}/model.json", site.card),
        Route("/runs/{run_id}/model.md", site.card),
        Route("/runs/{run_id}/cancel", site.ask_to_cancel),
        Route("/runs/{run_id}/cancel", site.cancel, methods=["POST"]),
        Route("/records", site.records),
        Route("/sign-in", site.ask_to_sign_in),
        Route("/sign-in", site.sign_in, methods=["POST"]),
        Route("/sign-out", site.sign_out, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    refused = partial(_refused, site)
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Sealed)],
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
    code = next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    log.info("page_refused", path=request.url.path, reason=type(error).__name__)
    headers = {"cache-control": "no-store"}
    if isinstance(error, LimitReached):
        headers["retry-after"] = str(max(1, round(error.wait_s)))
    try:
        site.guard.session(request)
    except FederationError:
        return HTMLResponse(page("signed_out", problem=str(error)), code, headers)
    name = "signed_out" if isinstance(error, Unauthenticated) else "problem"
    return HTMLResponse(page(name, problem=str(error)), code, headers)


class _Events:
    """Answers with server-sent events, for as long as who follows them may."""

    def __init__(self, following: Callable[[Request], AbstractAsyncContextManager[Follow]]) -> None:
        self._following = following

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what changes; a refusal in between ends it, and the next request hears why."""
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            async with self._following(Request(scope, receive)) as follow:
                answer = StreamingResponse(changes(follow), media_type="text/event-stream")
                await answer(scope, receive, noting)
        except Unauthenticated:
            if not has_begun:
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Sealed:
    """Puts the headers on every answer, and answers for what is broken here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        has_begun = False

        async def sealed(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                own = message.setdefault("headers", [])
                own.extend((name.encode(), value.encode()) for name, value in HEADERS.items())
                if not any(name == b"cache-control" for name, _ in own):
                    own.append((b"cache-control", b"no-store" if _is_page(scope) else b"no-cache"))
            await send(message)

        try:
            await self._app(scope, receive, sealed)
        except Exception:
            log.exception("bug", path=scope["path"])
            if not has_begun:
                text = "the orchestrator has a bug; its log says more"
                await HTMLResponse(page("signed_out", problem=text), 500)(scope, receive, sealed)


def _is_page(scope: Scope) -> bool:
    return not scope["path"].startswith("/static/")
