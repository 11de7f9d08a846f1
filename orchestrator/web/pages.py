"""Templates -> HTML. Every value is escaped, unless it was made by a template."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.web import view

if TYPE_CHECKING:
    from collections.abc import Mapping

FILTERS = (view.size, view.duration, view.words, view.member)


def page(template: str, /, **values: Any) -> str:
    """Return a whole page."""
    return _templates().get_template(f"{template}.html").render(**values)


def fragment(template: str, /, **values: Any) -> Markup:
    """Return a part of a page, which another template takes as it is."""
    return Markup(page(f"fragments/{template}", **values))  # noqa: S704 - a template made it


def joined(fragments: Mapping[str, Markup], prefix: str) -> Markup:
    """Return the fragments whose names begin with `prefix`, in their order."""
    return Markup("").join(each for name, each in fragments.items() if name.startswith(prefix))


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("orchestrator.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {each.__name__: each for each in FILTERS}
    made.globals |= {"joined": joined}
    return made
