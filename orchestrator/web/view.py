"""What the page says of a run: functions of its state alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.protocol import Effective, Refusal, RefusalReason
from common.renyi import epsilon_renyi
from common.tls import identity_of
from common.web.values import values_in_force
from common.web.words import duration, size, words
from orchestrator.rounds import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.ids import GatewayId
    from common.plan import Plan
    from common.protocol import GatewayStatus, RunStatus
    from common.web.values import Value
    from orchestrator.rounds import Round
    from orchestrator.runs import Run
    from orchestrator.web.history import RoundRow

SEEDED = "none: its noise was seeded"


@dataclass(frozen=True)
class Sent:
    """What has come of a gateway's update for a round, and how fast it comes."""

    count: int = 0  # bytes, repeats counted
    per_s: float = 0.0  # bytes, of late


NOTHING_SENT = Sent()


@dataclass(frozen=True)
class Seen:
    """A run at one moment, with what of it is not in its journal."""

    run: Run
    status: RunStatus
    sent: Mapping[GatewayId, Sent]  # of updates for the round that is open
    rounds: tuple[RoundRow, ...]


@dataclass(frozen=True)
class Place:
    """Where a gateway stands in the round that is open, or was last."""

    word: str
    kind: str  # good, busy, bad or quiet: how it is shown
    why: str = ""


@dataclass(frozen=True)
class GatewayRow:
    """One gateway of a run."""

    status: GatewayStatus
    place: Place
    spent: str


@dataclass(frozen=True)
class Values:
    """What a gateway trains with, in the order of `VALUE_NAMES`; empty: it has not accepted."""

    gateway: str
    values: tuple[Value, ...]


def gateway_rows(seen: Seen) -> tuple[GatewayRow, ...]:
    """Return a run's gateways, by name."""
    return tuple(
        GatewayRow(each, _place(seen, each), _spent(seen.run, each))
        for each in seen.status.gateways
    )


def _place(seen: Seen, gateway: GatewayStatus) -> Place:
    if gateway.answer is None:
        return Place("has not answered the plan", "quiet")
    if isinstance(gateway.answer, Refusal):
        return Place("refused the plan", "bad", _reason(gateway.answer))
    if seen.run.round is None:
        return Place("accepted the plan", "quiet")
    return _in_round(seen.run.round, gateway, _sent(seen, gateway.gateway))


def _sent(seen: Seen, gateway: GatewayId) -> str:
    """Return what has come of an update, for people to read; empty if nothing has."""
    sent, whole = seen.sent.get(gateway, NOTHING_SENT), seen.run.plan.update_form.byte_length
    if not sent.count:
        return ""
    of = f" of {size(whole)}" if sent.count <= whole else ""
    speed = f", {size(round(sent.per_s))} a second" if sent.per_s >= 1 else ""
    return f"{size(sent.count)}{of}{speed}"


def _in_round(state: Round, gateway: GatewayStatus, sent: str) -> Place:
    name = gateway.gateway
    if name not in state.invited:
        return Place("not invited", "quiet")
    if (answered := _answered(state, name)) is not None:
        return answered
    if not state.wants(name):
        return Place("not needed", "quiet") if state.is_full else Place("late", "bad")
    return _at_work(gateway, sent, is_awaited=name in state.awaited)


def _at_work(gateway: GatewayStatus, sent: str, *, is_awaited: bool) -> Place:
    if sent:
        return Place("uploading", "busy", sent)
    if is_awaited:
        return Place("must send again", "busy", "the orchestrator was restarted")
    return Place("training", "busy") if gateway.connected else Place("away", "bad")


def _answered(state: Round, name: GatewayId) -> Place | None:
    """Return what came of a gateway's answer to a round; None if there is none yet."""
    if name in state.received:
        return Place("in", "good")
    if name in state.set_aside:
        return Place("set aside", "bad", "in quarantine")
    if name in state.refused:
        return Place("refused", "bad", words(state.refused[name].reason))
    if name in state.declined:
        return _declined(state.declined[name])
    if name in state.lost:
        return Place("late", "bad", "lost in a restart, did not come again")
    return None


def _declined(reason: RefusalReason) -> Place:
    """Return how a round that will not be trained is shown: a pause is people's, no fault."""
    if reason is RefusalReason.PAUSED:
        return Place("paused", "quiet", "by the people of the site")
    return Place("declined", "bad", words(reason))


def _reason(refusal: Refusal) -> str:
    return f"{words(refusal.reason)} ({refusal.field})" if refusal.field else words(refusal.reason)


def _spent(run: Run, gateway: GatewayStatus) -> str:
    bound = epsilon_at_most(run, gateway)
    return SEEDED if bound is None else f"{bound:.2f}"


def epsilon_at_most(run: Run, gateway: GatewayStatus) -> float | None:
    """Return a bound on the epsilon that a gateway has spent, two digits, rounded up.

    It is the smaller of two bounds: of Renyi accounting for every round that the gateway was told
    to train, and of the plan, at whose bounds `target_epsilon` is not passed.

    Returns:
        None if the gateway's noise was seeded: nothing is promised then.
    """
    if not isinstance(gateway.answer, Effective):
        return 0.0
    if gateway.answer.insecure_deterministic:
        return None
    how, privacy = gateway.answer.hyperparameters, run.plan.privacy
    steps = {(how.noise_multiplier, how.sampling_rate): how.local_steps * gateway.rounds_invited}
    bound = min(epsilon_renyi(steps, privacy.delta), privacy.target_epsilon)
    return math.ceil(bound * 100) / 100


def values_of(plan: Plan, status: RunStatus) -> tuple[Values, ...]:
    """Return the hyperparameters in force, by gateway."""
    return tuple(Values(each.gateway, _values(plan, each)) for each in status.gateways)


def _values(plan: Plan, gateway: GatewayStatus) -> tuple[Value, ...]:
    if not isinstance(gateway.answer, Effective):
        return ()
    return values_in_force(plan, gateway.gateway, gateway.answer.hyperparameters)


def headline(seen: Seen) -> str:
    """Return where a run stands, in a sentence that changes with a round and no more often."""
    status = seen.status
    why = f": {status.reason}" if status.reason else ""
    return f"{status.state}{why}, {status.published_round} of {status.rounds} rounds published"


def round_line(seen: Seen) -> str:
    """Return how the round that is open, or was last, goes; nothing before the first."""
    state = seen.run.round
    if state is None:
        return ""
    said = [f"{len(state.received)} of {len(state.invited)} updates in", f"quorum {state.quorum}"]
    counted = {"refused": state.refused, "declined": state.declined, "lost": state.lost}
    said += [f"{len(those)} {word}" for word, those in counted.items() if those]
    if state.phase is Phase.COLLECTING and not seen.status.has_ended:
        said.append(f"{duration(seen.status.remaining_s)} left")
    return f"{state.phase.value}: {', '.join(said)}"


def member(uri: str) -> str:
    """Return who a URI of the federation names: role and name; anybody else as they are."""
    found = identity_of(uri)
    return uri if found is None else f"{found.role} {found.name}"
