"""`python -m gateway` does what `fedgate-gateway` does."""

from __future__ import annotations

from gateway.cli import main

main()
