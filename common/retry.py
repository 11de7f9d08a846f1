"""What may be tried again, and how long to wait before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Backoff:
    """Waits that double up to a limit; only `UnavailableError` is tried again."""

    first_s: float = 0.1
    limit_s: float = 5.0

    def waits(self) -> Iterator[float]:
        """Yield the seconds to wait before each further try, without end."""
        wait = self.first_s
        while True:
            yield wait
            wait = min(2 * wait, self.limit_s)


LONGEST_ASKED_S = 60.0  # an orchestrator may ask for; whoever asks for more would stop a gateway


def wait_after(error: BaseException, waits: Iterator[float]) -> float:
    """Return the seconds to wait after `error`: the next of `waits`, or longer if it says so."""
    asked_s = error.wait_s if isinstance(error, LimitReached) else 0.0
    return max(next(waits), min(asked_s, LONGEST_ASKED_S))
