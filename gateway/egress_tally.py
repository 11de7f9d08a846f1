"""What has left this gateway since it was started, by the entries of the egress manifest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Count:
    """Of one field: how often it was sent, and how many bytes that took."""

    values: int = 0
    byte_length: int = 0

    def __add__(self, other: Count) -> Count:
        """Return both together."""
        return Count(self.values + other.values, self.byte_length + other.byte_length)


class Tally:
    """Counts fields as they are handed to the connection; what is sent again counts again.

    Bytes are those of the fields themselves, not what gRPC and TLS put around them.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Count] = {}
        self.total = Count()

    def count(self, field: str, values: int, byte_length: int) -> None:
        """Note that a field has left."""
        more = Count(values, byte_length)
        self._counts[field] = self.of(field) + more
        self.total += more

    def of(self, field: str) -> Count:
        """Return what has left in a field of the manifest."""
        return self._counts.get(field, Count())
