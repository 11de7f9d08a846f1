"""A file that says whether this gateway is up: for probes, since a gateway never listens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from common.listening import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

FILE = "presence.json"


class Presence(BaseModel):
    """What a gateway's process says of itself."""

    model_config = ConfigDict(frozen=True)

    process: int
    connected: bool  # registered, and the orchestrator's stream is open


def write_presence(state: Path, *, connected: bool) -> None:
    """Replace the file by one that holds the present state."""
    text = Presence(process=os.getpid(), connected=connected).model_dump_json()
    write_atomically(state / FILE, text)


def read_presence(state: Path) -> Presence | None:
    """Return what the last process on this folder has said of itself, or None."""
    try:
        return Presence.model_validate_json((state / FILE).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def runs(presence: Presence) -> bool:
    """Whether the process that has said so is there."""
    try:
        os.kill(presence.process, 0)
    except OSError:
        return False
    return True


def is_present(state: Path) -> bool:
    """Whether the gateway whose folder this is runs and is connected."""
    found = read_presence(state)
    return found is not None and found.connected and runs(found)
