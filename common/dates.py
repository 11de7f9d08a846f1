"""How far two machines' clocks are apart, from the date that an answer carries."""

from __future__ import annotations

from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from common.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

DATE = "date"  # of an answer's trailers, as HTTP writes it
MOST_APART = timedelta(minutes=5)  # what the life of certificates allows for


class ClockApart(RequestError):
    """This machine and the orchestrator do not agree on the time of day."""

    def __init__(self, apart: timedelta, now: datetime) -> None:
        way = "ahead of" if apart > timedelta(0) else "behind"
        super().__init__(
            f"this machine's clock ({now:%Y-%m-%d %H:%M} UTC) is {in_words(abs(apart))} {way} the "
            "orchestrator's: let both follow a time server (NTP), else certificates are refused "
            "before their end or taken after it"
        )


def in_words(span: timedelta) -> str:
    """Return a span of time in the unit that fits it."""
    seconds = span.total_seconds()
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def date_in(trailers: Iterable[tuple[str, str | bytes]] | None) -> datetime | None:
    """Return the date of an answer, or None where it carries none that can be read."""
    for name, value in trailers or ():
        if name == DATE and isinstance(value, str):
            try:
                found = parsedate_to_datetime(value)
            except ValueError:
                return None
            return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return None


def check_clocks(here: datetime, there: datetime) -> timedelta:
    """Return by how much this clock is ahead; raise ClockApart beyond MOST_APART."""
    apart = here - there
    if abs(apart) > MOST_APART:
        raise ClockApart(apart, here)
    return apart
