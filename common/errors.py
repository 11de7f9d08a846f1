"""Every error raised on purpose, one tree; the class says who can mend it."""

from __future__ import annotations


class FederationError(Exception):
    """Something the federation refuses or cannot do; its text is safe to show a caller."""

    field: str | None = None  # the setting or message field at fault, where there is one


class RequestError(FederationError):
    """The request is wrong: sending it again changes nothing until it is changed."""


class ImpossibleEvent(RequestError):
    """A mechanism's parameters describe nothing that can be run."""

    def __init__(self, name: str, value: float, need: str) -> None:
        super().__init__(f"{name} is {value}, must be {need}")
        self.field = name


class ConflictError(FederationError):
    """The request came at the wrong moment, or contradicts what was said before."""


class UnavailableError(FederationError):
    """Nothing is wrong with the request; the same one may succeed later."""


class AbortedError(UnavailableError):
    """Another call is in the way, or has moved things on: ask the same server where they stand."""


class PermissionRefused(RequestError):
    """The caller's certificate does not allow what it asked for."""


class NotFound(RequestError):
    """What the request names does not exist here."""
