"""Which Python this software runs on: said before anything that an older one cannot read."""

from __future__ import annotations

import sys

LEAST = (3, 11)


def require(major: int, minor: int) -> None:
    """Leave with exit code 1 and a sentence unless Python `major.minor` is one that will do."""
    if (major, minor) >= LEAST:
        return
    got, need = f"{major}.{minor}", ".".join(map(str, LEAST))
    sys.exit(
        f"error: this is Python {got} ({sys.executable}), fedgate needs {need} or newer: make its "
        f"environment with that one, such as `python{need} -m venv .venv`, and install it there"
    )
