"""A round is a value; `advance` is its only way on.

    opened ──▶ COLLECTING ──target, all answered, or deadline with quorum──▶ AGGREGATING ──▶ CLOSED
                 │   ▲                                                          │   │
                 │   └────────────── restarted: received → awaited ─────────────┘   │
                 └──▶ ABANDONED (quorum out of reach) ◀────── no weights came ──────┘

A round without its quorum is ABANDONED with a reason. What is awaited was received before a
restart and must come again with the same digest; at the deadline it is lost, and does not count.
Until then its place under the target is kept: nobody who was acknowledged is displaced.

A refused update is its gateway's answer. Of a gateway in quarantine nothing is waited for: what it
sends is set aside.
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
    UpdateRefused,
    UpdateSetAside,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from common.bad_updates import UpdateRefusalReason
    from common.ids import GatewayId, WeightsId
    from common.protocol import RefusalReason


class Phase(Enum):
    """Where a round stands."""

    COLLECTING = "collecting"
    AGGREGATING = "aggregating"
    CLOSED = "closed"
    ABANDONED = "abandoned"


OPEN = (Phase.COLLECTING, Phase.AGGREGATING)  # phases of a round that has not ended


class IllegalTransition(ConflictError):
    """An event does not fit the state that it meets; the state stays as it is."""

    def __init__(self, state: str, event: object) -> None:
        super().__init__(f"{type(event).__name__} does not fit what is {state}")


@dataclass(frozen=True)
class Refused:
    """An update of which nothing is taken."""

    digest: WeightsId
    reason: UpdateRefusalReason


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
    declined: Mapping[GatewayId, RefusalReason] = field(default_factory=dict)
    lost: frozenset[GatewayId] = frozenset()
    norm_bound: float | None = None
    quarantined: frozenset[GatewayId] = frozenset()
    refused: Mapping[GatewayId, Refused] = field(default_factory=dict)
    set_aside: Mapping[GatewayId, WeightsId] = field(default_factory=dict)
    norms: Mapping[GatewayId, float] = field(default_factory=dict)  # of what was received
    reason: str = ""

    @property
    def answered(self) -> frozenset[GatewayId]:
        """Those from whom nothing more will come."""
        sent = self.received.keys() | self.set_aside.keys() | self.refused.keys()
        return frozenset(self.declined.keys() | self.lost | sent)

    @property
    def silent(self) -> frozenset[GatewayId]:
        """Those who were invited and neither sent an update nor declined."""
        return self.invited - (self.answered - self.lost)

    @property
    def countable(self) -> frozenset[GatewayId]:
        """Those whose updates count if they come."""
        return self.invited - self.quarantined

    @property
    def may_come(self) -> int:
        """How many updates may be in the sum in the end."""
        return len(self.countable - self.declined.keys() - self.lost - self.refused.keys())

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
        return self.has_room and not self.has_answered(gateway)

    def has_answered(self, gateway: GatewayId) -> bool:
        """Whether nothing more will come from `gateway`."""
        said = (self.received, self.set_aside, self.refused, self.declined, self.lost)
        return any(gateway in each for each in said)

    def holder_of(self, digest: str) -> GatewayId | None:
        """Return whose update of this round that one is, if it is here or was."""
        for held in (self.received, self.awaited, self.set_aside):
            if digest in held.values():
                return next(gateway for gateway, each in held.items() if each == digest)
        return None


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
        norm_bound=event.norm_bound,
        quarantined=frozenset(event.quarantined),
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
        case UpdateSetAside():
            return state.set_aside.get(event.gateway) == event.digest
        case UpdateRefused():
            return state.refused.get(event.gateway) == Refused(event.digest, event.reason)
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
        case UpdateSetAside() if _may_be_set_aside(state, event):
            return _set_aside(state, event)
        case GatewayDeclined() | UpdateLost() | UpdateRefused():
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
    is_wanted = state.wants(event.gateway) and event.gateway in state.countable
    return is_wanted and state.awaited.get(event.gateway, event.digest) == event.digest


def _may_be_set_aside(state: Round, event: UpdateSetAside) -> bool:
    return event.gateway in state.quarantined and state.wants(event.gateway)


def _receive(state: Round, event: UpdateAccepted) -> Round:
    received = {**state.received, event.gateway: event.digest}
    after = replace(
        state,
        received=received,
        awaited=_without(state.awaited, event.gateway),
        norms=_with_norm(state, event),
        remaining_s=event.remaining_s,
    )
    return _settled(after)


def _set_aside(state: Round, event: UpdateSetAside) -> Round:
    set_aside = {**state.set_aside, event.gateway: event.digest}
    norms = _with_norm(state, event)
    return replace(state, set_aside=set_aside, norms=norms, remaining_s=event.remaining_s)


def _with_norm(state: Round, event: UpdateAccepted | UpdateSetAside) -> Mapping[GatewayId, float]:
    return state.norms if event.norm is None else {**state.norms, event.gateway: event.norm}


def _drop(state: Round, event: GatewayDeclined | UpdateLost | UpdateRefused) -> Round:
    gateway = event.gateway
    if isinstance(event, UpdateLost):
        if gateway in state.awaited:
            return _settled(_without_update(state, gateway))
    elif gateway in state.invited - state.answered:
        left, awaited = event.remaining_s, _without(state.awaited, gateway)
        after = replace(state, awaited=awaited, remaining_s=left)
        if isinstance(event, GatewayDeclined):
            after = replace(after, declined={**state.declined, gateway: event.refusal.reason})
            return _settled(after, last_refusal=event.refusal.reason)
        refused = {**state.refused, gateway: Refused(event.digest, event.reason)}
        return _settled(replace(after, refused=refused))
    raise IllegalTransition(f"a round that is {state.phase.value}", event)


def _without_update(state: Round, gateway: GatewayId) -> Round:
    awaited = _without(state.awaited, gateway)
    return replace(state, awaited=awaited, lost=state.lost | {gateway})


def _settled(state: Round, *, last_refusal: RefusalReason | None = None) -> Round:
    """Leave COLLECTING if the quorum is out of reach, or if there is nothing left to wait for."""
    if state.may_come < state.quorum:
        reason = (
            f"at most {state.may_come} of the {state.quorum} updates needed can still come: "
            + ", ".join(_why_fewer(state))
            + (f" (the last one declined: {last_refusal})" if last_refusal else "")
        )
        return replace(state, phase=Phase.ABANDONED, reason=reason)
    if state.is_full or state.answered >= state.countable:
        return replace(state, phase=Phase.AGGREGATING)
    return state


def _why_fewer(state: Round) -> Iterator[str]:
    yield f"{len(state.declined)} declined"
    yield f"{len(state.lost)} lost"
    if state.refused:
        yield f"{len(state.refused)} refused"
    if state.quarantined:
        yield f"{len(state.quarantined)} in quarantine"


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
