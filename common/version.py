"""Which software this is."""

from __future__ import annotations

from importlib.metadata import version


def public_version(text: str) -> str:
    """Return a version without its local part, which may name whoever built it, and where."""
    return text.partition("+")[0]


SOFTWARE_VERSION = public_version(version("fedgate"))
