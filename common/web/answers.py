"""What every answer of a page has: its status, and the headers that keep others out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from starlette.responses import Response

from common.errors import (
    ConflictError,
    FederationError,
    LimitReached,
    NotFound,
    PermissionRefused,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()

STATUS: Mapping[type[Exception], int] = {  # the nearest ancestor counts
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


class NoSuchPage(NotFound):
    """An address leads nowhere."""

    def __init__(self) -> None:
        super().__init__("there is no such page here: begin with the first one")


def status_of(error: Exception, own: Mapping[type[Exception], int]) -> int:
    """Return with which status an error is answered; `own` errors of a side come first."""
    known = {**STATUS, **own}
    return next(known[kind] for kind in type(error).__mro__ if kind in known)


def answered_headers(error: Exception) -> dict[str, str]:
    """Return the headers of a refusal: it is kept nowhere, and says when to come again."""
    headers = {"cache-control": "no-store"}
    if isinstance(error, LimitReached):
        headers["retry-after"] = str(max(1, round(error.wait_s)))
    return headers


class Sealed:
    """Puts the headers on every answer, and answers for what is broken here."""

    def __init__(self, app: ASGIApp, broken: Response) -> None:
        """Answer with `broken` where the page has a bug."""
        self._app = app
        self._broken = broken

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
                await self._broken(scope, receive, sealed)


def _is_page(scope: Scope) -> bool:
    return not scope["path"].startswith("/static/")
