"""The date of an answer: what a caller tells by how far its clock is from the orchestrator's."""

from __future__ import annotations

from email.utils import format_datetime
from typing import TYPE_CHECKING

from common.dates import DATE

if TYPE_CHECKING:
    from common.clock import Clock
    from orchestrator.auth import Context


def date(context: Context, clock: Clock) -> None:
    """Let the answer to a call carry the time of day, as HTTP has it, among its trailers."""
    context.set_trailing_metadata(((DATE, format_datetime(clock.wall(), usegmt=True)),))
