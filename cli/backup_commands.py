"""`fedgate backup` and `fedgate restore`: all that an orchestrator over SQLite keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import OrchestratorOption
from common.console import OUT, Format, FormatOption, emit_json, working

if TYPE_CHECKING:
    from orchestrator.backup import Manifest
    from orchestrator.config import OrchestratorConfig


def backup(
    to: Annotated[Path, typer.Option("--to", help="A folder that is new or empty.")],
    config: OrchestratorOption = Path("orchestrator.toml"),
    output: FormatOption = Format.TEXT,
) -> None:
    """Save journal, weights and signing key, on the orchestrator's machine, while it runs."""
    from common.clock import SystemClock
    from orchestrator import backup as saving

    with working(f"saving to {to}") as work:
        manifest = saving.make(_settings(config), to, SystemClock(), work.reached)
    _say(manifest, f"saved to {to}", output)


def restore(
    source: Annotated[Path, typer.Option("--from", help="A folder that `fedgate backup` made.")],
    config: OrchestratorOption = Path("orchestrator.toml"),
    output: FormatOption = Format.TEXT,
) -> None:
    """Put a backup back, where there is no journal. No other orchestrator may go on from it too."""
    from orchestrator import backup as saving

    with working(f"restoring from {source}") as work:
        manifest = saving.restore(_settings(config), source, work.reached)
    _say(manifest, f"restored from {source}", output)


def _settings(path: Path) -> OrchestratorConfig:
    from common.config import load_settings
    from orchestrator.config import OrchestratorConfig

    return load_settings(OrchestratorConfig, path)


def _say(manifest: Manifest, what: str, output: Format) -> None:
    if output is Format.JSON:
        emit_json(manifest.model_dump(mode="json"))
        return
    key = "with" if manifest.signing_key else "WITHOUT (nothing has been signed yet)"
    OUT.print(
        f"{what}: federation {manifest.federation}, the journal of {manifest.made_at:%F %T %Z}, "
        f"{manifest.weights} files of weights, {key} its signing key",
        markup=False,
    )
