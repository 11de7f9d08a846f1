"""The pages of the project, for the tests that hold them to the code."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.docs.blocks import Block, blocks

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "docs" / "tutorials"  # whose blocks a test of their own runs
FRONT = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


@cache
def pages() -> tuple[Path, ...]:
    """Return every page."""
    return (*(ROOT / name for name in FRONT), *sorted((ROOT / "docs").rglob("*.md")))


@cache
def checked_pages() -> tuple[Path, ...]:
    """Return the pages whose blocks are checked here: all but the tutorials."""
    return tuple(page for page in pages() if TUTORIALS not in page.parents)


@cache
def checked_blocks(*languages: str) -> tuple[Block, ...]:
    """Return the blocks of those pages that are in one of `languages`."""
    found = (block for page in checked_pages() for block in blocks(page))
    return tuple(block for block in found if block.language in languages)


def named(page: Path) -> str:
    """Return what a page is called from the repository's root."""
    return page.relative_to(ROOT).as_posix()
