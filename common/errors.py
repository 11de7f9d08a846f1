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


class LimitReached(UnavailableError):
    """More was asked for than one caller, or all together, may have at a time."""

    def __init__(self, text: str, *, wait_s: float = 0.0) -> None:
        """Say that it may succeed in `wait_s` seconds, not before."""
        super().__init__(text)
        self.wait_s = wait_s


class PermissionRefused(RequestError):
    """The caller's certificate does not allow what it asked for."""


class NotFound(RequestError):
    """What the request names does not exist here."""
