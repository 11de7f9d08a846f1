"""Options that several commands of `fedgate-gateway` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[Path, typer.Option("--config", help="This gateway's settings, TOML.")]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--insecure-deterministic",
        help="Seed all randomness, for tests: NOTHING IS PRIVATE, epsilon is reported as null.",
    ),
]
DeltaOption = Annotated[float, typer.Option(help="Delta of the statement.")]
