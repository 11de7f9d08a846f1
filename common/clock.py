"""The only reader of time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What tells the time, and waits for it."""

    def now(self) -> float:
        """Return seconds on a monotonic clock: for deadlines, meaningless across processes."""

    def wall(self) -> datetime:
        """Return the time of day in UTC: for display, and for the life of certificates."""

    async def sleep_until(self, deadline: float) -> None:
        """Return once `now()` has reached `deadline`."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return seconds on the machine's monotonic clock."""
        return time.monotonic()

    def wall(self) -> datetime:
        """Return the time of day in UTC."""
        return datetime.now(UTC)

    async def sleep_until(self, deadline: float) -> None:
        """Return once `now()` has reached `deadline`."""
        await asyncio.sleep(max(0.0, deadline - self.now()))
