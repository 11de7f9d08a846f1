"""What mkdocs calls while it builds: fills the navigation, adds the reference, turns links."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files

from website import commands, exit_codes, protocol, python_api, settings
from website.repository import (
    DOCS,
    FRONT,
    ROOT,
    SOURCES,
    in_repository,
    is_local,
    links,
    site_link,
    site_path,
    source_page,
    target,
    with_links,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

REFERENCE = "reference/"
EVERY = "/*"  # of an entry of the navigation: all pages of a folder that no other entry names


def reference() -> dict[str, tuple[str, str]]:
    """Return the title and the text of each page that is made from the code, by its place."""
    made = {
        **commands.pages(),
        **settings.pages(),
        **protocol.pages(),
        **python_api.pages(),
        **exit_codes.pages(),
    }
    return {f"{REFERENCE}{name}": page for name, page in made.items()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder where the navigation says that all of them belong."""
    named = set(_named(config.nav))
    config.nav = _expanded(config.nav or [], named)
    return config


def _named(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for below in entry.values():
            yield from _named(below)
    else:
        for below in entry or ():
            yield from _named(below)


def _expanded(entries: list[Any], named: set[str]) -> list[Any]:
    filled: list[Any] = []
    for entry in entries:
        if isinstance(entry, dict):
            below = {
                title: _expanded(inner, named) if isinstance(inner, list) else inner
                for title, inner in entry.items()
            }
            filled += [below] if all(below.values()) else []  # a folder may have no page yet
        elif entry == f"{REFERENCE.rstrip('/')}{EVERY}":
            filled += [{title: uri} for uri, (title, _) in reference().items()]
        elif entry.endswith(EVERY):
            folder = entry.removesuffix(EVERY)
            pages = (f"{folder}/{page.name}" for page in (ROOT / DOCS / folder).glob("*.md"))
            filled += sorted(set(pages) - named)
        else:
            filled.append(entry)
    return filled


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the front page, the reference, and the files that pages link to."""
    for path, uri in FRONT.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    for uri, (_, text) in reference().items():
        files.append(File.generated(config, uri, content=text))
    for path in sorted(_linked(files)):
        files.append(File.generated(config, site_path(path), content=source_page(path)))
    return files


def _linked(files: Files) -> set[str]:
    """Return the files outside of `docs/` that pages link to."""
    found = set()
    for file in files.documentation_pages():
        page = in_repository(file.src_uri)
        if page is not None:
            found |= {target(page, link) for link in links(file.content_string) if is_local(link)}
    outside = {path for path in found if site_path(path).startswith(SOURCES)}
    return {path for path in outside if Path(ROOT, path).is_file()}


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links that hold in the repository into such that hold on the site."""
    path = in_repository(page.file.src_uri)
    if path is None:
        return markdown
    if path == f"{DOCS}{REFERENCE}index.md":
        markdown += "".join(
            f"\n- [{title}]({uri.removeprefix(REFERENCE)})"
            for uri, (title, _) in reference().items()
        )
        return markdown
    return with_links(markdown, lambda link: site_link(path, link))
