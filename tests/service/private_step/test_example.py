"""The example of private training, as a reader runs it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "examples" / "train_privately.py"


def test_the_example_learns():
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        check=True,
        capture_output=True,
        text=True,
        cwd=EXAMPLE.parents[1],
    )
    share = re.fullmatch(r"(\d+)% right\n", done.stdout)
    assert share is not None
    assert int(share[1]) > 80
