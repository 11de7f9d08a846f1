"""How the figures of the docs are drawn: as SVG, the same bytes for the same values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def pyplot() -> Any:
    """Return matplotlib's `pyplot`, set to draw SVG."""
    import matplotlib as mpl  # noqa: PLC0415 - only for figures

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "fedgate"
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only for figures

    return plt


def save(picture: Any, path: Path) -> None:
    """Write a figure."""
    picture.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, metadata={"Date": None})
