"""Where a link of a page leads: on the site, and in the repository as a Git host shows it."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs/"
SOURCES = "source/"  # of the site: files of the repository that pages link to
FRONT = {  # pages of the repository that the site has too
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
HIGHLIGHTED = {".py": "python", ".toml": "toml", ".yml": "yaml", ".yaml": "yaml", ".proto": "proto"}

_FENCED = re.compile(r"(^ *(?:`{3,}|~{3,}).*?^ *(?:`{3,}|~{3,}) *$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=[)\s])")


def links(markdown: str) -> Iterator[str]:
    """Yield the targets of a page's links and pictures, outside of its code blocks."""
    for text in _FENCED.split(markdown)[::2]:
        yield from _LINK.findall(text)


def with_links(markdown: str, change: Callable[[str], str]) -> str:
    """Return a page with each link's target changed, its code blocks left alone."""
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda found: change(found[1]), text) for text in parts[::2]]
    return "".join(parts)


def is_local(link: str) -> bool:
    """Whether a link leads to a file of the repository, rather than away or within its page."""
    parts = urlsplit(link)
    return not parts.scheme and not parts.netloc and bool(parts.path)


def target(page: str, link: str) -> str:
    """Return the file that `link` leads to; like `page`, as seen from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), urlsplit(link).path))


def site_path(path: str) -> str:
    """Return which page or picture of the site shows a file of the repository."""
    if path in FRONT:
        return FRONT[path]
    return path.removeprefix(DOCS) if path.startswith(DOCS) else f"{SOURCES}{path}.md"


def in_repository(uri: str) -> str | None:
    """Return which page of the repository a page of the site shows; None: a generated one."""
    for path, front in FRONT.items():
        if uri == front:
            return path
    return f"{DOCS}{uri}" if (ROOT / DOCS / uri).exists() else None


def site_link(page: str, link: str) -> str:
    """Return a link of a page as the site has to have it."""
    if not is_local(link):
        return link
    here = posixpath.dirname(site_path(page)) or "."
    anchor = f"#{urlsplit(link).fragment}" if urlsplit(link).fragment else ""
    return posixpath.relpath(site_path(target(page, link)), here) + anchor


def source_page(path: str) -> str:
    """Return a page of the site that shows a file of the repository."""
    language = HIGHLIGHTED.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{(ROOT / path).read_text(encoding='utf-8')}````\n"
