"""A round is a value; `advance` is its only way on.

    opened ──▶ COLLECTING ──target, all answered, or deadline with quorum──▶ AGGREGATING ──▶ CLOSED
                 │   ▲                                                          │   │
                 │   └────────────── restarted: received → awaited ─────────────┘   │
                 └──▶ ABANDONED (quorum out of reach) ◀────── no weights came ──────┘

A round without its quorum is ABANDONED with a reason. What is awaited was received before a
restart and must come again with the same digest; at the deadline it is lost, and does not count.
Until then its place under the target is kept: nobody who was acknowledged is displaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from common.errors import ConflictError
from orchestrator.events import (
    DeadlinePassed,
    GatewayDeclined,
    Restarted,
    RoundAbandoned,
    RoundEvent,
    RoundOpened,
    RoundPublished,
    UpdateAccepted,
    UpdateLost,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.ids import GatewayId, WeightsId


class Phase(Enum):
    """Where a round stands."""

    COLLECTING = "collecting"
    AGGREGATING = "aggregating"
    CLOSED = "closed"
    ABANDONED = "abandoned"


class IllegalTransition(ConflictError):
    """An event does not fit the state that it meets; the state stays as it is."""

    def __init__(self, state: str, event: object) -> None:
        super().__init__(f"{type(event).__name__} does not fit what is {state}")


@dataclass(frozen=True)
class Round:
    """One attempt to turn `parent` into the weights of round `number`."""

    number: int
    attempt: int
    parent: WeightsId
    invited: frozenset[GatewayId]
    quorum: int
    remaining_s: float
    target: int | None = None  # updates that close it; None: those of everyone invited
    phase: Phase = Phase.COLLECTING
    received: Mapping[GatewayId, WeightsId] = field(default_factory=dict)
    awaited: Mapping[GatewayId, WeightsId] = field(default_factory=dict)
    declined: frozenset[GatewayId] = frozenset()
    lost: frozenset[GatewayId] = frozenset()
    reason: str = ""

    @property
    def answered(self) -> frozenset[GatewayId]:
        """Those from whom nothing more will come."""
        return self.declined | self.lost | self.received.keys()

    @property
    def silent(self) -> frozenset[GatewayId]:
        """Those who were invited and neither sent an update nor declined."""
        return self.invited - self.declined - self.received.keys()

    @property
    def is_full(self) -> bool:
        """Whether as many updates as close it are in the sum."""
        return self.target is not None and len(self.received) >= self.target

    @property
    def has_room(self) -> bool:
        """Whether another update than those received and awaited would count."""
        return self.target is None or len(self.received) + len(self.awaited) < self.target

    @property
    def has_ended(self) -> bool:
        """Whether nothing can be added to it."""
        return self.phase in {Phase.CLOSED, Phase.ABANDONED}

    def wants(self, gateway: GatewayId) -> bool:
        """Whether an update of `gateway` would be counted now."""
        if self.phase is not Phase.COLLECTING or gateway not in self.invited:
            return False
        if gateway in self.awaited:
            return True
        has_answered = gateway in self.received or gateway in self.declined or gateway in self.lost
        return self.has_room and not has_answered


def opened(event: RoundOpened) -> Round:
    """Return the round that `event` begins."""
    return Round(
        number=event.number,
        attempt=event.attempt,
        parent=event.parent,
        invited=frozenset(event.invited),
        quorum=event.quorum,
        remaining_s=event.remaining_s,
        target=event.target,
    )


def advance(state: Round, event: RoundEvent) -> Round:
    """Return the round after `event`; the same one for a repeated event.

    Raises:
        IllegalTransition: no rule fits, as for a late or foreign update.
    """
    if _is_repeated(state, event):
        return state
    if state.phase is Phase.COLLECTING:
        return _while_collecting(state, event)
    if state.phase is Phase.AGGREGATING:
        return _while_aggregating(state, event)
    return _after_the_end(state, event)


def _is_repeated(state: Round, event: RoundEvent) -> bool:
    """Whether a gateway's event says what is known of it already."""
    match event:
        case UpdateAccepted():
            return state.received.get(event.gateway) == event.digest
        case GatewayDeclined():
            return event.gateway in state.declined
        case UpdateLost():
            return event.gateway in state.lost
        case _:
            return False


def _while_collecting(state: Round, event: RoundEvent) -> Round:
    match event:
        case UpdateAccepted() if _may_count(state, event):
            return _receive(state, event)
        case GatewayDeclined() | UpdateLost():
            return _drop(state, event)
        case DeadlinePassed() if not state.awaited:
            return _close(state)
        case Restarted():
            return _restart(state, event)
        case RoundAbandoned():
            return replace(state, phase=Phase.ABANDONED, reason=event.reason)
        case _:
            raise IllegalTransition("a round that is collecting", event)


def _while_aggregating(state: Round, event: RoundEvent) -> Round:
    match event:
        case RoundPublished() if set(event.members) == state.received.keys():
            return replace(state, phase=Phase.CLOSED)
        case RoundAbandoned():
            return replace(state, phase=Phase.ABANDONED, reason=event.reason)
        case Restarted():
            return _restart(state, event)
        case DeadlinePassed():
            return state
        case _:
            raise IllegalTransition("a round that is aggregating", event)


def _after_the_end(state: Round, event: RoundEvent) -> Round:
    match event:
        case RoundOpened():
            return opened(event)
        case DeadlinePassed() | Restarted():
            return state
        case RoundAbandoned() if state.phase is Phase.ABANDONED:
            return state
        case UpdateLost() if event.gateway in state.awaited:
            return _without_update(state, event.gateway)  # one lost before it was one too many
        case _:
            raise IllegalTransition(f"a round that is {state.phase.value}", event)


def _may_count(state: Round, event: UpdateAccepted) -> bool:
    """Whether the gateway's update is wanted, and the one that it sent before."""
    is_wanted = state.wants(event.gateway)
    return is_wanted and state.awaited.get(event.gateway, event.digest) == event.digest


def _receive(state: Round, event: UpdateAccepted) -> Round:
    received = {**state.received, event.gateway: event.digest}
    awaited = _without(state.awaited, event.gateway)
    return _settled(
        replace(state, received=received, awaited=awaited, remaining_s=event.remaining_s)
    )


def _drop(state: Round, event: GatewayDeclined | UpdateLost) -> Round:
    gateway = event.gateway
    if isinstance(event, UpdateLost) and gateway in state.awaited:
        return _settled(_without_update(state, gateway))
    if isinstance(event, GatewayDeclined) and gateway in state.invited - state.answered:
        declined, awaited = state.declined | {gateway}, _without(state.awaited, gateway)
        left = event.remaining_s
        return _settled(replace(state, awaited=awaited, declined=declined, remaining_s=left))
    raise IllegalTransition(f"a round that is {state.phase.value}", event)


def _without_update(state: Round, gateway: GatewayId) -> Round:
    awaited = _without(state.awaited, gateway)
    return replace(state, awaited=awaited, lost=state.lost | {gateway})


def _settled(state: Round) -> Round:
    """Leave COLLECTING if the quorum is out of reach, or if there is nothing left to wait for."""
    reachable = len(state.invited) - len(state.declined) - len(state.lost)
    if reachable < state.quorum:
        reason = (
            f"at most {reachable} of the {state.quorum} updates needed can still come: "
            f"{len(state.declined)} declined, {len(state.lost)} lost"
        )
        return replace(state, phase=Phase.ABANDONED, reason=reason)
    if state.is_full or state.answered == state.invited:
        return replace(state, phase=Phase.AGGREGATING)
    return state


def _close(state: Round) -> Round:
    if len(state.received) >= state.quorum:
        return replace(state, phase=Phase.AGGREGATING)
    reason = f"{len(state.received)} of the {state.quorum} updates needed came by the deadline"
    return replace(state, phase=Phase.ABANDONED, reason=reason)


def _restart(state: Round, event: Restarted) -> Round:
    return replace(
        state,
        phase=Phase.COLLECTING,
        received={},
        awaited={**state.awaited, **state.received},
        remaining_s=event.remaining_s,
    )


def _without(
    digests: Mapping[GatewayId, WeightsId], gateway: GatewayId
) -> Mapping[GatewayId, WeightsId]:
    return {name: digest for name, digest in digests.items() if name != gateway}
