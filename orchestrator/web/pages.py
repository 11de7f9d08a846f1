"""The orchestrator's templates."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse

from common.web.pages import Pages
from orchestrator.web.view import member

if TYPE_CHECKING:
    from markupsafe import Markup

    from orchestrator.web.guard import Visit


def page(template: str, /, **values: Any) -> str:
    """Return a whole page."""
    return _pages().page(template, **values)


def shown(visit: Visit, template: str, /, **values: Any) -> HTMLResponse:
    """Return a whole page as the answer to somebody who is signed in."""
    return HTMLResponse(page(template, visit=visit, **values))


def fragment(template: str, /, **values: Any) -> Markup:
    """Return a part of a page, which another template takes as it is."""
    return _pages().fragment(template, **values)


@cache
def _pages() -> Pages:
    return Pages("orchestrator.web", member)
