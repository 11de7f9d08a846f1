"""The code blocks of our Markdown pages, for tests that run what the pages show."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, and the file that its title names."""

    page: Path
    line: int  # of the page, from 1: where the text begins
    language: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of `page` in order, those in lists and admonitions too."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    found = []
    for token in tokens:
        if token.type != "fence" or token.map is None:
            continue
        language, _, options = token.info.strip().partition(" ")
        settings = dict(part.split("=", 1) for part in shlex.split(options) if "=" in part)
        found.append(
            Block(page, token.map[0] + 2, language, settings.get("title", ""), token.content)
        )
    return found
