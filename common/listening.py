"""Addresses where a process listens: that one is taken, and files that say which it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.errors import UnavailableError

if TYPE_CHECKING:
    from pathlib import Path


class AddressTaken(UnavailableError):
    """A process cannot listen where it should."""

    def __init__(self, address: str, setting: str = "address") -> None:
        super().__init__(
            f"cannot listen on {address}: another process listens there (`ss -ltnp` names it), or "
            f"the host is not this machine's: stop that process, or set another `{setting}`"
        )


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file by one that holds `text`."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
