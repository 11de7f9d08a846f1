"""Links of every page hold on a plain Git host; `test_site.py` holds them on the site."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from markdown_it import MarkdownIt
from pymdownx.slugs import slugify

from tests.docs.pages import named, pages

if TYPE_CHECKING:
    from pathlib import Path

HOST = re.compile(r"^[a-z0-9-]+(\.[a-z0-9-]+)+$")
_slug = slugify(case="lower")  # as Git hosts name the places of a page


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    tokens = MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
    inner = [child for token in tokens for child in token.children or ()]
    found = (child.attrGet("href") or child.attrGet("src") for child in inner)
    return [str(link) for link in found if link]


@cache
def places(page: Path) -> frozenset[str]:
    """Return the places within a page that a link can lead to: one for each heading."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    headings = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    named_once: set[str] = set()
    for heading in headings:
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading)
        slug, again = str(_slug(words, "-")), 0
        while (slug if not again else f"{slug}-{again}") in named_once:
            again += 1
        named_once.add(slug if not again else f"{slug}-{again}")
    return frozenset(named_once)


def broken(page: Path, link: str) -> str:
    """Return what is wrong with a link of a page; nothing if it leads somewhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        is_well_formed = parts.scheme == "https" and HOST.match(parts.netloc)
        return "" if is_well_formed else f"{link}: no https address of a host"
    target = (page.parent / parts.path).resolve() if parts.path else page
    if not target.is_file():
        return f"{link}: no such file"
    if parts.fragment and target.suffix == ".md" and parts.fragment not in places(target):
        return f"{link}: no such heading"
    return ""


@pytest.mark.parametrize("page", pages(), ids=named)
def test_every_link_of_a_page_leads_somewhere(page):
    assert not list(filter(None, (broken(page, link) for link in links(page))))


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("no-such.md", "no such file"),
        ("README.md#no-such-heading", "no such heading"),
        ("#no-such-heading", "no such heading"),
        ("http://example.org", "no https address"),
        ("https://exa mple.org/", "no https address"),
        ("README.md", ""),
        ("docs/explanation/privacy.md#where-the-promise-ends", ""),
    ],
)
def test_a_link_that_leads_nowhere_is_noticed(link, problem):
    (readme,) = (page for page in pages() if page.name == "README.md")
    assert problem in broken(readme, link)
    assert bool(problem) == bool(broken(readme, link))
