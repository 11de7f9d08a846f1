"""The `fedgate` command."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cli import (  # some add commands to groups: `plan check`, `run compare`, `model predict`
    audit_commands,
    backup_commands,
    compare_command,  # noqa: F401
    demo_command,
    doctor_command,
    enroll_commands,
    evaluate_commands,  # noqa: F401
    figures_command,  # noqa: F401
    init_command,
    model_commands,
    new_commands,
    pki_commands,
    plan_commands,  # noqa: F401
    plan_key_commands,
    predict_command,  # noqa: F401
    prepare_command,  # noqa: F401
    push_command,  # noqa: F401
    run_commands,
    try_command,
    web_commands,
)
from cli.options import OrchestratorOption
from common.console import ERRORS, Format, FormatOption, VersionOption, emit_json, run_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(run_commands.app, name="run")
app.add_typer(pki_commands.app, name="pki")
app.add_typer(enroll_commands.app, name="enroll")
app.add_typer(plan_key_commands.app, name="plan")
app.add_typer(audit_commands.app, name="audit")
app.add_typer(web_commands.app, name="web")
app.add_typer(new_commands.app, name="new")
app.command("doctor")(doctor_command.doctor)
app.command("backup")(backup_commands.backup)
app.command("restore")(backup_commands.restore)
app.add_typer(model_commands.app, name="model")
app.command("demo")(demo_command.demo)
app.command("init")(init_command.init)
app.command("try")(try_command.try_)

StandbyOption = Annotated[
    bool,
    typer.Option("--standby", help="Wait while another one leads over the same PostgreSQL."),
]


@app.callback()
def fedgate(version: VersionOption = False) -> None:  # noqa: FBT002 - done by then
    """Federated learning with differential privacy inside the training loop."""


@app.command()
def serve(
    config: OrchestratorOption = Path("orchestrator.toml"),
    standby: StandbyOption = False,  # noqa: FBT002 - an option of the command line
) -> None:
    """Run the orchestrator until it is told to stop.

    Example:
        fedgate serve --config orchestrator.toml
    """
    from common.config import load_settings
    from orchestrator.config import OrchestratorConfig
    from orchestrator.server import serve as serve_forever

    asyncio.run(serve_forever(load_settings(OrchestratorConfig, config), standby=standby))


@app.command()
def health(
    config: OrchestratorOption = Path("orchestrator.toml"), output: FormatOption = Format.TEXT
) -> None:
    """Ask the orchestrator on this machine whether it serves; exit code 0 if it does."""
    from common.config import load_settings
    from orchestrator.config import OrchestratorConfig
    from orchestrator.probe import check_health

    settings = load_settings(OrchestratorConfig, config)
    serves = asyncio.run(check_health(settings.health_socket_path))
    if output is Format.JSON:
        emit_json({"serving": serves})
    else:
        ERRORS.print("serving" if serves else "not serving")
    raise typer.Exit(0 if serves else 1)


def main() -> None:
    """Run the command line."""
    run_app(app)


if __name__ == "__main__":
    main()
