"""Options that several commands of `fedgate-gateway` take, and what comes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.config import load_settings
from gateway.config import GatewayConfig

if TYPE_CHECKING:
    from gateway.ledger_desk import Desk

ConfigOption = Annotated[Path, typer.Option("--config", help="This gateway's settings, TOML.")]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--insecure-deterministic",
        help="Seed all randomness, for tests: NOTHING IS PRIVATE, epsilon is reported as null.",
    ),
]
DeltaOption = Annotated[float, typer.Option(help="Delta of the statement.")]


def desk(config: Path, seed: int | None) -> Desk:
    """Return what reads and writes the ledger of the gateway with those settings."""
    from gateway.ledger_desk import desk_of  # noqa: PLC0415 - a probe loads no SQL

    return desk_of(load_settings(GatewayConfig, config), seed)
