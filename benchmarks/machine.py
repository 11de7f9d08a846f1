"""Where and of what a measurement was taken."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def described() -> dict[str, object]:
    """Return the machine and the commit, as every result names them."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return {
        "commit": commit.stdout.strip() or "unknown",
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
    }
