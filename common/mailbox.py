"""Keeps only the newest word on each subject, for a reader that is slower than its stream."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

MOST_SUBJECTS = 1000

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class Mailbox(Generic[KeyT, ValueT]):
    """A queue in which a newer value replaces the older one of the same key, in its place."""

    def __init__(self, most: int = MOST_SUBJECTS) -> None:
        """Begin empty and open; `most` subjects at a time are what `room` leads to."""
        self._values: dict[KeyT, ValueT] = {}
        self._most = most
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._closed = False

    def put(self, key: KeyT, value: ValueT) -> None:
        """Leave `value`, in place of an older one of `key` that nobody has taken."""
        self._values[key] = value
        self._changed.set()

    async def room(self, key: KeyT) -> None:
        """Return once a value of `key` takes no more memory than may be: whoever sends waits."""
        while key not in self._values and len(self._values) >= self._most:
            self._taken.clear()
            await self._taken.wait()

    def put_back(self, key: KeyT, value: ValueT) -> None:
        """Leave `value` again, unless there is newer word on `key`."""
        if key not in self._values:
            self.put(key, value)

    def close(self) -> None:
        """Say that nothing more comes; what is inside can still be taken."""
        self._closed = True
        self._changed.set()

    async def get(self) -> tuple[KeyT, ValueT] | None:
        """Return the value that waits longest, with its key; None once closed and empty."""
        while not self._values:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        self._taken.set()
        key = next(iter(self._values))
        return key, self._values.pop(key)
