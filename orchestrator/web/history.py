"""How the rounds of a run went, one after the other: a fold of its events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.events import (
    DeadlinePassed,
    GatewayDeclined,
    Restarted,
    RoundAbandoned,
    RoundOpened,
    RoundPublished,
    RunCancelled,
    RunFailed,
    UpdateAccepted,
    UpdateLost,
    UpdateRefused,
    UpdateSetAside,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.events import RunEvent


_COUNTED = {
    UpdateAccepted: "received",
    UpdateSetAside: "set_aside",
    UpdateRefused: "refused",
    GatewayDeclined: "declined",
}


@dataclass(frozen=True)
class RoundRow:
    """One attempt at a round, as far as it has come."""

    number: int
    attempt: int
    invited: int
    began_s: float  # that its deadline was away when it opened
    received: int = 0
    set_aside: int = 0
    refused: int = 0
    declined: int = 0
    lost: int = 0
    took_s: float = 0.0  # from its opening to the last answer
    outcome: str = "open"


def rows_after(rows: tuple[RoundRow, ...], events: Iterable[RunEvent]) -> tuple[RoundRow, ...]:
    """Return the rows once `events` have happened too."""
    made = list(rows)
    for event in events:
        if made:
            made[-1] = _after(made[-1], event)
        if isinstance(event, RoundOpened):
            invited, began_s = len(event.invited), event.remaining_s
            made.append(RoundRow(event.number, event.attempt, invited, began_s))
    return tuple(made)


def _after(row: RoundRow, event: RunEvent) -> RoundRow:
    match event:
        case UpdateAccepted() | UpdateSetAside() | UpdateRefused() | GatewayDeclined():
            return _answered(row, event)
        case UpdateLost():
            return replace(row, lost=row.lost + 1)
        case DeadlinePassed():
            return replace(row, took_s=row.began_s)
        case Restarted():
            return replace(row, received=0)  # it comes again
        case RoundPublished():
            return replace(row, outcome="published", received=len(event.members))
        case _:
            return replace(row, outcome=_outcome(row, event))


def _outcome(row: RoundRow, event: RunEvent) -> str:
    if isinstance(event, RoundAbandoned):
        return f"abandoned: {event.reason}"
    is_over = isinstance(event, RoundOpened | RunFailed | RunCancelled)
    return "abandoned" if is_over and row.outcome == "open" else row.outcome


def _answered(
    row: RoundRow, event: UpdateAccepted | UpdateSetAside | UpdateRefused | GatewayDeclined
) -> RoundRow:
    """Count an answer and note when it came; a restart gives time back, not less of the past."""
    field = _COUNTED[type(event)]
    took_s = max(row.took_s, row.began_s - event.remaining_s)
    return replace(row, took_s=took_s, **{field: getattr(row, field) + 1})
