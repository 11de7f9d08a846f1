"""What the page knows of the gateway's work, as the agent tells it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.clock import Clock
    from common.ids import GatewayId
    from common.protocol import Train, UpdateKey
    from gateway.watching import Answered, Outcome, Phase
    from gateway.web.asked import Asked


@dataclass
class AtWork:
    """The round that is worked on."""

    key: UpdateKey
    phase: str = ""  # empty between two


class Notes:
    """Looks on while the agent works; lives on its event loop."""

    def __init__(self, gateway: GatewayId, asked: Asked, clock: Clock) -> None:
        self.gateway = gateway
        self.asked = asked
        self.is_connected = False
        self.at_work: AtWork | None = None
        self.outcomes: Counter[str] = Counter()
        self.changes = 0  # of what the ledger may know, too
        self.begun = clock.wall()
        self._clock = clock
        self._rung = asyncio.Event()

    @property
    def rung(self) -> asyncio.Event:
        """What is set at the next change."""
        return self._rung

    def ring(self) -> None:
        """Say that something has changed."""
        self.changes += 1
        self._rung.set()
        self._rung = asyncio.Event()

    def connected(self, connected: bool, /) -> None:  # noqa: FBT001 - as the agent tells it
        """Note that the orchestrator's stream opened or broke."""
        self.is_connected = connected
        self.ring()

    def answered(self, answered: Answered) -> None:
        """Keep how a plan was answered."""
        self.asked.note(answered, self.gateway, self._clock.wall())
        self.ring()

    @contextmanager
    def round(self, key: UpdateKey, train: Train) -> Iterator[None]:  # noqa: ARG002
        """Note which round is worked on in the block."""
        self.at_work = AtWork(key)
        self.ring()
        try:
            yield
        finally:
            self.at_work = None
            self.ring()

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Note what a round's time is spent on."""
        if self.at_work is not None:
            self.at_work.phase = str(phase)
        self.ring()
        yield

    def moved(self, phase: Phase, byte_length: int) -> None:
        """Take no note: what leaves is counted where it does."""

    def ended(self, outcome: Outcome) -> None:
        """Count a round."""
        self.outcomes[outcome] += 1
        self.ring()
