"""The page of exit codes: the section that the tests hold the commands to."""

from __future__ import annotations

from website.repository import ROOT

SECTION = "## Exit codes"
HELD = ROOT / "docs" / "how-to" / "when-something-is-wrong.md"


def pages() -> dict[str, tuple[str, str]]:
    """Return the page: title and text by file name."""
    section = HELD.read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    return {"exit-codes.md": ("Exit codes", f"# Exit codes\n{section}")}
