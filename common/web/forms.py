"""Forms: only those that a page of ours has sent, and no longer ones than any here."""

from __future__ import annotations

import asyncio
from secrets import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from common.errors import PermissionRefused, RequestError

if TYPE_CHECKING:
    from starlette.requests import Request

LONGEST_FORM = 4096  # bytes
FORM_S = 10.0  # until all of it has come


class ForeignForm(PermissionRefused):
    """A form was not sent from a page of ours."""

    def __init__(self) -> None:
        super().__init__(
            "this was not sent from a page of this address: go back, load the page again and send "
            "it from there"
        )


class FormTooLong(RequestError):
    """A form is longer than any here."""

    def __init__(self, longest: int) -> None:
        super().__init__(
            f"a form has at most {longest} bytes here, and comes at once: send a shorter one, "
            "or the same again"
        )


async def form_of(request: Request, url: str, longest: int = LONGEST_FORM) -> dict[str, str]:
    """Return the fields of a form that a page of `url` has sent.

    Raises:
        ForeignForm: another page has, or it is not said which.
        FormTooLong: it has too many bytes, or they do not come.
    """
    _check_origin(request, url)
    body = await _body_of(request, longest)
    return {name: values[-1] for name, values in parse_qs(body.decode("latin-1")).items()}


def _check_origin(request: Request, url: str) -> None:
    """Raise ForeignForm unless a page of `url`, or of the address that was asked, has sent this."""
    origin = request.headers.get("origin")
    ours = {url, f"{request.url.scheme}://{request.headers.get('host', '')}"}
    is_ours = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    if origin not in ours or not is_ours:
        raise ForeignForm


def check_csrf(given: str, csrf: str) -> None:
    """Raise ForeignForm unless a form holds what the session's forms hold."""
    if not compare_digest(given.encode(), csrf.encode()):
        raise ForeignForm


async def _body_of(request: Request, longest: int) -> bytes:
    """Return a request's body; raise FormTooLong beyond `longest` bytes, or where it is slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_S):
            async for part in request.stream():
                body += part
                if len(body) > longest:
                    raise FormTooLong(longest)
    except TimeoutError:
        raise FormTooLong(longest) from None
    return bytes(body)
