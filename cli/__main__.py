"""`python -m cli` does what `fedgate` does."""

from __future__ import annotations

from cli.main import main

main()
