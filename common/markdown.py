"""Tables in Markdown, written by programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def row(*cells: str) -> str:
    """Return a line of a table; what would end a cell or a line is written otherwise."""
    return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in cells)} |"


def table(head: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table, or nothing where there are no rows."""
    lines = list(rows)
    if not lines:
        return ""
    return "\n".join((row(*head), f"|{'---|' * len(head)}", *lines)) + "\n"
