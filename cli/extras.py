"""Packages that only some commands need."""

from __future__ import annotations

from common.errors import RequestError


class ExtraMissing(RequestError):
    """A command needs packages that are not installed."""

    def __init__(self, what: str, extra: str, error: ImportError) -> None:
        super().__init__(
            f"{what} needs a package that is not here ({error}): pip install 'fedgate[{extra}]'"
        )
