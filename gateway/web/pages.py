"""The gateway's templates."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from common.accounting import rounded_up
from common.web.pages import Pages

if TYPE_CHECKING:
    from markupsafe import Markup


def page(template: str, /, **values: Any) -> str:
    """Return a whole page."""
    return _pages().page(template, **values)


def fragment(template: str, /, **values: Any) -> Markup:
    """Return a part of a page, which another template takes as it is."""
    return _pages().fragment(template, **values)


@cache
def _pages() -> Pages:
    return Pages("gateway.web", rounded_up)
