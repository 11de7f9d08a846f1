"""What may be tried again, and how long to wait before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
