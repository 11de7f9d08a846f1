"""Figures and codes for people to read."""

from __future__ import annotations

KIB, MIB = 1 << 10, 1 << 20
MINUTE, HOUR = 60.0, 3600.0


def words(code: str) -> str:
    """Return a code of the protocol as words."""
    return str(code).replace("_", " ")


def size(count: int) -> str:
    """Return a number of bytes for people to read."""
    if count < KIB:
        return f"{count} B"
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count / KIB:.1f} KiB"


def duration(seconds: float) -> str:
    """Return a time for people to read, to the second."""
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min {seconds % MINUTE:.0f} s"
    return f"{seconds // HOUR:.0f} h {seconds % HOUR // MINUTE:.0f} min"
