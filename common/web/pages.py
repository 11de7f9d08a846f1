"""Templates -> HTML. Every value is escaped, unless it was made by a template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from common.web import words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATIC = Path(__file__).parent / "static"
FILTERS = (words.size, words.duration, words.words)


class Pages:
    """The templates of one side's page, over those that both have."""

    def __init__(self, package: str, *filters: Callable[..., str]) -> None:
        """Look into `package` first."""
        self._made = Environment(
            loader=ChoiceLoader([PackageLoader(package), PackageLoader("common.web")]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._made.filters |= {each.__name__: each for each in (*FILTERS, *filters)}
        self._made.globals |= {"joined": _joined}

    def page(self, template: str, /, **values: Any) -> str:
        """Return a whole page."""
        return self._made.get_template(f"{template}.html").render(**values)

    def fragment(self, template: str, /, **values: Any) -> Markup:
        """Return a part of a page, which another template takes as it is."""
        return Markup(self.page(f"fragments/{template}", **values))  # noqa: S704 - a template made it


def _joined(fragments: Mapping[str, Markup], prefix: str) -> Markup:
    """Return the fragments whose names begin with `prefix`, in their order."""
    return Markup("").join(each for name, each in fragments.items() if name.startswith(prefix))
