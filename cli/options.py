"""Options and arguments that several commands of `fedgate` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="How to reach the orchestrator, TOML.")
]
OrchestratorOption = Annotated[
    Path, typer.Option("--config", help="The orchestrator's settings, TOML.")
]
RunArgument = Annotated[str, typer.Argument(help="The run's name.")]
ModelOption = Annotated[Path, typer.Option("--model", help="Folder that `model export` wrote.")]
