"""The `fedgate-gateway web` commands, and those that pause the gateway and let it go on."""

from __future__ import annotations

from pathlib import Path

import typer

from common.clock import SystemClock
from common.config import load_settings
from common.console import ERRORS, OUT, Format, FormatOption, emit_json
from common.surroundings import writing_to
from gateway.config import GatewayConfig
from gateway.options import ConfigOption
from gateway.pause import Pause

app = typer.Typer(no_args_is_help=True, help="The page for the people of this site.")


@app.command("link")
def link(config: ConfigOption = Path("gateway.toml"), output: FormatOption = Format.TEXT) -> None:
    """Print a link that signs a browser in to this gateway's page, once; it is a secret.

    Run it as the user whose the gateway's process is: the link is a file in the state folder.

    Example:
        fedgate-gateway web link --config gateway.toml
    """
    from gateway.web_links import LINK_S, Links

    settings = load_settings(GatewayConfig, config)
    with writing_to(settings.state):
        url = Links(settings.state).create(SystemClock().wall())
    if output is Format.JSON:
        emit_json({"url": url, "good_for_s": LINK_S})
        return
    OUT.print(url, markup=False)
    ERRORS.print(f"open it within {LINK_S} s, on this machine; whoever opens it first is signed in")


def pause(config: ConfigOption = Path("gateway.toml"), output: FormatOption = Format.TEXT) -> None:
    """Begin no new round until `resume`, after a restart neither; one in progress is finished.

    Example:
        fedgate-gateway pause --config gateway.toml
    """
    switch = Pause(load_settings(GatewayConfig, config).state)
    switch.turn_on(SystemClock().wall())
    _say(output, since=switch.since)


def resume(config: ConfigOption = Path("gateway.toml"), output: FormatOption = Format.TEXT) -> None:
    """Take part again, from the next round that the orchestrator opens.

    Example:
        fedgate-gateway resume --config gateway.toml
    """
    Pause(load_settings(GatewayConfig, config).state).turn_off()
    _say(output, since="")


def _say(output: Format, *, since: str) -> None:
    if output is Format.JSON:
        emit_json({"paused": bool(since), "since": since})
    elif since:
        OUT.print(f"paused since {since}: no new round is begun; `fedgate-gateway resume` ends it")
    else:
        OUT.print("not paused: the gateway takes part in the next round that it is invited to")
