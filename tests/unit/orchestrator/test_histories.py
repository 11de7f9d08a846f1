"""Invariants I4 and I9, over random histories of runs: what may happen is drawn, step by step.

I4: a round closes once, when all have answered, its target has come, or at the deadline with its
quorum; its members are fixed by the one event that names its durable result.
I9: if the quorum is reachable for one deadline, the round closes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.bad_updates import Reputation, UpdateNorm, UpdateRefusalReason
from common.ids import GatewayId
from common.plan import Rounds, WhenAbandoned
from common.protocol import Refusal, RefusalReason, RunState
from orchestrator.events import (
    DeadlinePassed,
    GatewayDeclined,
    GatewayReleased,
    PlanAccepted,
    PlanRefused,
    Restarted,
    RetryPostponed,
    RoundAbandoned,
    RoundOpened,
    RoundPublished,
    RunCancelled,
    RunCompleted,
    RunEvent,
    RunStarted,
    SitesAwaited,
    UpdateAccepted,
    UpdateLost,
    UpdateRefused,
    UpdateSetAside,
)
from orchestrator.rounds import IllegalTransition, Phase, Round, advance
from orchestrator.runs import Hold, Run, advance_run, begin
from orchestrator.selection import Presence
from orchestrator.steps import Await, Complete, PassDeadline, Publish, Rest, next_step
from tests.fakes import EFFECTIVE, plan_of

NAMES = tuple(map(GatewayId, "abcde"))
NO = Refusal(RefusalReason.FAILED)
HARSH = Reputation(watch=0.05, quarantine=0.1)  # one bad update is enough
SETS_A_DEADLINE = RunStarted | Restarted | RetryPostponed | SitesAwaited | RoundOpened


@st.composite
def plans(draw) -> Rounds:
    quorum = draw(st.integers(1, 4))
    target = draw(st.none() | st.integers(quorum, 5))
    return Rounds(
        count=draw(st.integers(1, 4)),
        maximum=draw(st.integers(4, 8)),
        quorum=quorum,
        deadline_s=60.0,
        when_abandoned=draw(st.sampled_from([WhenAbandoned.RETRY] * 4 + [WhenAbandoned.END])),
        target=target,
        over_selection=0 if target is None else draw(st.integers(0, 5 - target)),
        minimum_sites=draw(st.sampled_from([0, 0, 2, 5])),
        retry_pause_s=draw(st.sampled_from([0.0, 1.0])),
    )


@dataclass
class History:
    """A run that goes on by what the core decides and by what is drawn to happen to it."""

    rounds: Rounds
    events: list[RunEvent] = field(default_factory=list)
    states: list[Run] = field(default_factory=list)
    refused: list[RunEvent] = field(default_factory=list)
    connected: frozenset[GatewayId] = frozenset()
    left: frozenset[GatewayId] = frozenset()
    is_overdue: bool = False

    def __post_init__(self) -> None:
        plan = plan_of(*NAMES, rounds=self.rounds, update_norm=UpdateNorm(), reputation=HARSH)
        self.states.append(begin("r", plan, "2" * 64))
        self.record(RunStarted(60.0))

    @property
    def run(self) -> Run:
        return self.states[-1]

    def record(self, *events: RunEvent) -> None:
        """Append what is legal, as the journal does; note what is refused."""
        for event in events:
            try:
                after = advance_run(self.run, event)
            except IllegalTransition:
                self.refused.append(event)
                continue
            if after != self.run or isinstance(event, Restarted):
                self.events.append(event)
                self.states.append(after)
                self.is_overdue &= not isinstance(event, SETS_A_DEADLINE)

    def drive(self) -> None:
        """Do what the core asks for until it waits or rests."""
        while not isinstance(step := self.decision(), Await | Rest):
            match step:
                case PassDeadline():
                    self.record(*map(UpdateLost, step.lost), DeadlinePassed())
                case Publish():
                    members = tuple(sorted(self.run.round.received))
                    self.record(RoundPublished(f"{len(self.events):064x}", None, members))
                case Complete():
                    self.record(RunCompleted("8" * 64, "7" * 64))
                case _:
                    self.record(step)

    def decision(self):
        return next_step(self.run, Presence(self.connected, self.left), is_overdue=self.is_overdue)

    def happens(self, what: str, gateway: GatewayId) -> None:
        one = frozenset({gateway})
        match what:
            case "comes":
                self.connected, self.left = self.connected | one, self.left - one
            case "goes":
                self.connected, self.left = self.connected - one, self.left | one
            case "time":
                self.is_overdue = True
            case "restart":
                self.connected = self.left = frozenset()
                self.record(Restarted(30.0))
            case _:
                self.record(SAID[what](gateway))


SAID: dict[str, Callable[[GatewayId], RunEvent]] = {
    "accepts": lambda gateway: PlanAccepted(gateway, EFFECTIVE, 30.0),
    "refuses": lambda gateway: PlanRefused(gateway, NO, 30.0),
    "sends": lambda gateway: UpdateAccepted(gateway, f"digest of {gateway}", 30.0, 1.0),
    "sends much": lambda gateway: UpdateAccepted(gateway, f"digest of {gateway}", 30.0, 5.0),
    "sends from quarantine": lambda gateway: UpdateSetAside(gateway, f"of {gateway}", 30.0, 1.0),
    "is refused": lambda gateway: UpdateRefused(gateway, "bad", UpdateRefusalReason.NAMES, 30.0),
    "is released": GatewayReleased,
    "declines": lambda gateway: GatewayDeclined(gateway, NO, 30.0),
    "broken": lambda _: RoundAbandoned("the new weights would not be finite"),
    "cancel": lambda _: RunCancelled(),
}
OFTEN = ("sends",) * 12 + ("time", "restart") * 2 + ("accepts", "comes", "goes", "declines")
GUARDED = ("sends much", "sends from quarantine", "is refused", "is released")
SELDOM = ("refuses", "broken", "cancel")
HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(OFTEN * 2 + GUARDED + SELDOM),
        st.sampled_from(NAMES),
        st.booleans(),  # whether the core acts before the next thing happens
    ),
    min_size=30,
    max_size=60,
)


def told(rounds: Rounds, happenings, *, accepted: bool = True) -> History:
    """Return the history that `happenings` make of a run; the core acts between any two."""
    history = History(rounds)
    if accepted:
        history.record(*(PlanAccepted(name, EFFECTIVE, 50.0) for name in NAMES))
        history.connected = frozenset(NAMES)
    history.drive()
    for what, gateway, acts in happenings:
        history.happens(what, gateway)
        if acts:
            history.drive()
    history.drive()
    return history


def closings(history: History) -> list[tuple[Run, RunEvent, Run]]:
    """Return every step that took a round from collecting to aggregating."""
    return [
        (before, event, after)
        for before, event, after in zip(
            history.states, history.events, history.states[1:], strict=False
        )
        if before.round is not None
        and before.round.phase is Phase.COLLECTING
        and after.round.phase is Phase.AGGREGATING
    ]


def has_a_reason_to_close(event: RunEvent, state: Round) -> bool:
    if isinstance(event, DeadlinePassed):
        return len(state.received) >= state.quorum
    return state.is_full or state.answered >= state.countable


def check_i4(history: History) -> None:
    published = [event for event in history.events if isinstance(event, RoundPublished)]
    assert [run.published for run in history.states] == sorted(
        run.published for run in history.states
    )
    assert history.run.published == len(published) <= history.rounds.count
    for _, event, after in closings(history):
        assert has_a_reason_to_close(event, after.round)
        assert len(after.round.received) >= after.round.quorum
    for before, event, after in zip(
        history.states, history.events, history.states[1:], strict=False
    ):
        if isinstance(event, RoundPublished):
            assert before.round.phase is Phase.AGGREGATING
            assert set(event.members) == before.round.received.keys() <= before.round.invited
            assert after.round.phase is Phase.CLOSED
            assert not set(event.members) & before.round.quarantined
        elif before.round is not None and before.round.phase is Phase.CLOSED:
            is_next = isinstance(event, RoundOpened) and event.number == before.round.number + 1
            assert is_next or after.round.received == before.round.received


@given(plans(), HAPPENINGS, st.booleans())
def test_i4_a_round_closes_once_for_a_reason_and_its_members_stay(rounds, happenings, accepted):
    check_i4(told(rounds, happenings, accepted=accepted))


ONE_OF_FIVE = Rounds(count=1, maximum=1, quorum=1, deadline_s=60.0, target=1, over_selection=4)
DISPLACED = [("sends", "a", False), ("restart", "a", True), ("sends", "b", True)]


@example(rounds=ONE_OF_FIVE, happenings=DISPLACED, accepted=True)
@given(plans(), HAPPENINGS, st.booleans())
def test_a_round_never_has_more_than_its_target_nor_displaces_who_was_acknowledged(
    rounds, happenings, accepted
):
    history = told(rounds, happenings, accepted=accepted)
    states = [run.round for run in history.states if run.round is not None]
    for state in states:
        assert state.target is None or len(state.received) + len(state.awaited) <= state.target
    for before, after in pairwise(states):
        if (before.number, before.attempt) == (after.number, after.attempt):
            had = before.received.keys() | before.awaited.keys()
            gone = had - after.received.keys() - after.awaited.keys()
            assert gone <= after.declined.keys() | after.lost | after.refused.keys()


@given(plans(), HAPPENINGS, st.booleans())
def test_every_attempt_of_a_round_has_the_same_parent_and_no_round_more_than_one_charge(
    rounds, happenings, accepted
):
    history = told(rounds, happenings, accepted=accepted)
    openings = [event for event in history.events if isinstance(event, RoundOpened)]
    parents: dict[int, set[str]] = {}
    told_of: dict[int, set[GatewayId]] = {}
    for event in openings:
        parents.setdefault(event.number, set()).add(event.parent)
        told_of.setdefault(event.number, set()).update(event.invited)
    assert all(len(each) == 1 for each in parents.values())
    assert len(openings) == history.run.opened <= rounds.maximum
    charged = Counter(gateway for each in told_of.values() for gateway in each)
    assert charged == Counter(history.run.invitations)
    assert all(count <= rounds.count for count in charged.values())
    assert all(
        history.run.memberships.get(name, 0) <= history.run.invitations.get(name, 0)
        for name in NAMES
    )


@given(plans(), HAPPENINGS, st.booleans())
def test_a_replay_of_the_journal_gives_the_same_run(rounds, happenings, accepted):
    history = told(rounds, happenings, accepted=accepted)
    again = begin("r", history.run.plan, "2" * 64)
    for event in history.events:
        again = advance_run(again, event)
    assert again == history.run


@given(plans(), HAPPENINGS, st.booleans(), st.data())
def test_i9_a_round_closes_if_its_quorum_can_come_before_one_deadline(
    rounds, happenings, accepted, data
):
    """From wherever a history led: sites connect, accept, and as many as the quorum answer."""
    history = told(rounds, happenings, accepted=accepted)
    if history.run.has_ended or history.run.opened >= rounds.maximum:
        return
    for name in NAMES:
        history.happens("accepts", name)
        history.happens("comes", name)
    history.drive()
    if history.run.round is None or history.run.round.has_ended:  # time goes by, then it opens
        history.happens("time", NAMES[0])
        history.drive()
    open_round = history.run.round
    if history.run.has_ended or open_round is None or open_round.has_ended:
        assert history.run.has_ended
        return
    can_come = [g for g in NAMES if open_round.wants(g) and g in open_round.countable]
    if len(open_round.received) + len(can_come) < open_round.quorum:
        return  # out of reach; not this round
    published = history.run.published
    awaited = [g for g in can_come if g in open_round.awaited]  # they live, so they come again
    others = data.draw(st.permutations([g for g in can_come if g not in awaited]))
    missing = max(0, open_round.quorum - len(open_round.received) - len(awaited))
    for name in [*awaited, *others[:missing]]:
        history.happens("sends", name)
        history.drive()
    history.happens("time", NAMES[0])
    history.drive()
    assert history.run.published > published


@given(plans(), HAPPENINGS)
def test_a_run_that_waits_has_something_to_wait_for(rounds, happenings):
    """Once time is up the core always does something: nothing hangs until it is cancelled."""
    history = told(rounds, happenings, accepted=False)
    for _ in range(200):
        if history.run.has_ended:
            break
        history.happens("time", NAMES[0])
        before = len(history.events)
        history.drive()
        assert history.run.has_ended or len(history.events) > before
    assert history.run.has_ended
    assert history.run.hold is not Hold.RETRY or history.run.state is RunState.CANCELLED


@given(plans(), HAPPENINGS)
def test_within_a_round_its_bound_and_its_quarantine_stay_as_they_were_opened(rounds, happenings):
    history = told(rounds, happenings)
    bound, aside = None, ()
    for event, run in zip(history.events, history.states[1:], strict=True):
        if isinstance(event, RoundOpened):
            bound, aside = event.norm_bound, event.quarantined
        if run.round is not None:
            assert (run.round.norm_bound, run.round.quarantined) == (bound, frozenset(aside))


@pytest.mark.parametrize("bug", ["closes below its quorum", "changes its members"])
def test_the_check_of_i4_can_fail(bug):
    rounds = Rounds(count=1, maximum=1, quorum=2, deadline_s=60.0)
    history = told(rounds, [("sends", "a", True), ("sends", "b", True), ("time", "a", True)])
    check_i4(history)
    place = next(n for n, run in enumerate(history.states) if run.published)
    right = history.states[place - 1]
    members = ["b"] if bug == "closes below its quorum" else ["b", "c"]
    received = {GatewayId(name): f"digest of {name}" for name in members}
    history.states[place - 1] = replace(right, round=replace(right.round, received=received))
    with pytest.raises(AssertionError):
        check_i4(history)
    assert advance(right.round, history.events[place - 1]).phase is Phase.CLOSED
