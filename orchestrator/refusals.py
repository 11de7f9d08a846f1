"""Refused calls on record: so many of each caller and of all; the rest are counted, not lost.

A record is a commit, and whoever is refused may call as often as they like.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from common.audit import ORCHESTRATOR, Action, Entry, Outcome
from common.errors import FederationError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.audit import Facts
    from common.clock import Clock
    from orchestrator.audit_log import AuditLog

log = structlog.get_logger()

WINDOW_S = 60.0


class Refusals:
    """Puts on record what is refused; lives on the event loop."""

    def __init__(self, audit: AuditLog, clock: Clock, *, of_one: int, of_all: int) -> None:
        """Put `of_one` refusals of a caller on record in a window, `of_all` of everyone's."""
        self._of_one_most, self._of_all_most = of_one, of_all
        self._audit = audit
        self._clock = clock
        self._began = clock.now()
        self._of_one: Counter[str] = Counter()
        self._withheld: Counter[Action] = Counter()

    @contextmanager
    def noted(self, actor: str, action: Action, facts: Facts) -> Iterator[None]:
        """Put on record what refuses the call inside the block, by its class alone."""
        try:
            yield
        except UnavailableError:
            raise  # nothing was wrong with it
        except FederationError as error:
            self.note(actor, action, {**facts, "reason": type(error).__name__})
            raise

    def note(self, actor: str, action: Action, facts: Facts) -> None:
        """Put a refusal on record, or count it where there were too many."""
        self.tell_withheld()
        if self._of_one[actor] >= self._of_one_most or self._of_one.total() >= self._of_all_most:
            self._withheld[action] += 1
            return
        self._of_one[actor] += 1
        self._write(Entry(actor, action, facts, Outcome.REFUSED))

    def tell_withheld(self) -> None:
        """Once a window is over, put on record how many refusals it left out."""
        now = self._clock.now()
        if now - self._began < WINDOW_S:
            return
        left_out, self._withheld = self._withheld, Counter()
        self._began, self._of_one = now, Counter()
        for action, count in left_out.items():
            self._write(Entry(ORCHESTRATOR, action, {"withheld": count}, Outcome.REFUSED))

    def _write(self, entry: Entry) -> None:
        try:
            self._audit.record(entry)
        except UnavailableError as error:  # the caller hears of its own mistake, not of this one
            self._withheld[entry.action] += 1
            log.warning("refusal_not_on_record", action=str(entry.action), why=str(error))
