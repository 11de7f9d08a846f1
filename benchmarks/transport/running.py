"""Processes that are started together and end together."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Running:
    """What is begun with `with`; whatever `_stack` holds is let go at the end, or if it fails."""

    def __init__(self) -> None:
        """Begin nothing yet."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _begin(self) -> None:
        """Start everything; what has to end is put on the stack."""
