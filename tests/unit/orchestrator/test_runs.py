from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.ids import GatewayId
from common.plan import Rounds, WhenAbandoned
from common.protocol import Effective, Refusal, RefusalReason, RunState, ScoreSet
from orchestrator.aggregation import Accumulator
from orchestrator.events import (
    DeadlinePassed,
    GatewayDeclined,
    PlanAccepted,
    PlanRefused,
    Restarted,
    RetryPostponed,
    RoundAbandoned,
    RoundOpened,
    RoundPublished,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    ScoresRecorded,
    SitesAwaited,
    UpdateAccepted,
    UpdateLost,
)
from orchestrator.rounds import IllegalTransition, Phase
from orchestrator.runs import Hold, Run, absent, advance_run, begin
from orchestrator.selection import Presence
from orchestrator.server_optimizer import OptimizerState
from orchestrator.steps import Await, Complete, PassDeadline, Publish, Rest, next_step, why_on_hold
from tests.averaging import InMemory, final_model, mean_of, server_step
from tests.fakes import EFFECTIVE, INITIAL, LAYOUT, difference, plan_of

ALL = frozenset("abc")
NOBODY = frozenset[GatewayId]()
NO = Refusal(RefusalReason.EPSILON_BUDGET)
ROUNDS = Rounds(count=2, maximum=3, quorum=2, deadline_s=60.0, retry_pause_s=0.0)
PLAN = plan_of("a", "b", "c", rounds=ROUNDS)
SCORES = ScoreSet(1, "dev", "5" * 64, f1=0.5, precision=0.5, recall=0.5, support=3)


def yes(gateway: str, effective: Effective = EFFECTIVE) -> PlanAccepted:
    return PlanAccepted(GatewayId(gateway), effective, 50.0)


def no(gateway: str) -> PlanRefused:
    return PlanRefused(GatewayId(gateway), NO, 50.0)


def sent(gateway: str) -> UpdateAccepted:
    return UpdateAccepted(GatewayId(gateway), f"digest of {gateway}", 30.0)


def fold(*events, plan=PLAN) -> Run:
    return reduce(advance_run, events, begin("r", plan, "2" * 64))


def step(run: Run, *, connected=ALL, left=NOBODY, is_overdue: bool = False):
    return next_step(run, Presence(connected, left), is_overdue=is_overdue)


def then(run: Run, *events, **facts) -> Run:
    """Take the step that the run needs, then let `events` happen."""
    return reduce(advance_run, events, advance_run(run, step(run, **facts)))


GATHERED = fold(RunStarted(60.0), yes("a"), yes("b"), yes("c"))
COLLECTING = then(GATHERED)
AGGREGATING = reduce(advance_run, [sent("a"), sent("b"), sent("c")], COLLECTING)


def published(run: Run) -> Run:
    members = tuple(sorted(run.round.received))
    return advance_run(run, RoundPublished(f"{run.round.number}" * 64, "9" * 64, members))


FIRST = published(AGGREGATING)


def test_a_run_gathers_until_everyone_has_answered():
    gathering = fold(RunStarted(60.0), yes("a"), yes("b"))
    assert step(gathering) == Await()
    opened = step(advance_run(gathering, no("c")))
    assert isinstance(opened, RoundOpened)
    assert opened.invited == ("a", "b")


def test_after_its_deadline_a_run_starts_with_a_quorum_of_acceptances():
    gathering = fold(RunStarted(60.0), yes("a"), yes("b"))
    assert isinstance(step(gathering, is_overdue=True), RoundOpened)
    late = step(fold(RunStarted(60.0), yes("a")), is_overdue=True)
    assert late == SitesAwaited(ROUNDS.wait_for_sites_s)


LATE = fold(RunStarted(60.0), yes("a"), SitesAwaited(500.0))


def test_a_gathering_without_its_quorum_goes_on_as_soon_as_it_has_it():
    assert (LATE.state, LATE.hold, LATE.left_s) == (RunState.GATHERING, Hold.SITES, 500.0)
    assert step(LATE) == Await()
    assert step(advance_run(LATE, yes("b"))).invited == ("a", "b")


def test_a_gathering_that_never_has_its_quorum_fails_the_run_with_a_reason():
    failed = step(LATE, is_overdue=True)
    assert failed == RunFailed(
        "1 of the rounds.quorum = 2 gateways needed accepted the plan "
        "within rounds.wait_for_sites_s = 86400 seconds"
    )


def test_too_many_refusals_fail_the_run_with_a_reason():
    failed = step(fold(RunStarted(60.0), no("a"), no("b")))
    assert failed == RunFailed(
        "2 of 3 gateways refused the plan, rounds.quorum needs 2 to accept it"
    )
    assert fold(RunStarted(60.0), failed).state is RunState.FAILED


def test_a_refusal_can_become_an_acceptance_which_stays_with_its_values():
    changed = replace(EFFECTIVE, insecure_deterministic=True)
    run = fold(RunStarted(60.0), no("a"), yes("a"))
    assert run.accepted == {"a"}
    assert advance_run(run, yes("a")) is run
    for other in (yes("a", changed), no("a")):
        with pytest.raises(IllegalTransition):
            advance_run(run, other)


def test_strangers_cannot_answer():
    with pytest.raises(IllegalTransition):
        fold(RunStarted(60.0), yes("stranger"))


def test_a_late_acceptance_counts_from_the_next_round_on():
    run = then(fold(RunStarted(60.0), yes("a"), yes("b")), is_overdue=True)
    late = published(reduce(advance_run, [yes("c"), sent("a"), sent("b")], run))
    assert run.round.invited == {"a", "b"}
    assert step(late).invited == ("a", "b", "c")


def test_a_round_waits_for_answers_then_publishes():
    assert step(COLLECTING) == Await()
    assert step(AGGREGATING) == Publish()


def test_at_the_deadline_what_is_awaited_is_lost():
    run = reduce(advance_run, [sent("a"), sent("b"), Restarted(5.0), sent("a")], COLLECTING)
    assert step(run, is_overdue=True) == PassDeadline(lost=("b",))
    ended = reduce(advance_run, [UpdateLost("b"), DeadlinePassed()], run)
    assert ended.round.phase is Phase.ABANDONED


def test_after_the_last_round_the_run_completes():
    last = published(then(FIRST, sent("a"), sent("b"), sent("c")))
    assert step(last) == Complete()
    completed = advance_run(last, RunCompleted("8" * 64, "7" * 64))
    assert (completed.state, completed.model) == (RunState.COMPLETED, "8" * 64)
    assert step(completed) == Rest()


def test_a_run_does_not_complete_early():
    with pytest.raises(IllegalTransition, match="1 rounds published"):
        advance_run(FIRST, RunCompleted("8" * 64, "7" * 64))


def test_an_abandoned_round_is_opened_again_on_the_same_parent():
    again = step(reduce(advance_run, [sent("a"), DeadlinePassed()], then(FIRST)))
    assert (again.number, again.attempt, again.parent) == (2, 2, FIRST.weights)


def with_rounds(run: Run, **changes) -> Run:
    rounds = run.plan.rounds.model_copy(update=changes)
    return replace(run, plan=run.plan.model_copy(update={"rounds": rounds}))


SEVERAL = {"maximum": 9, "retry_pause_s": 5.0}


def test_before_an_abandoned_round_is_opened_again_there_is_a_pause():
    abandoned = with_rounds(then(FIRST, DeadlinePassed()), **SEVERAL)
    assert step(abandoned, is_overdue=True) == RetryPostponed(5.0)
    paused = advance_run(abandoned, RetryPostponed(5.0))
    assert (paused.hold, paused.left_s) == (Hold.RETRY, 5.0)
    assert step(paused) == Await()
    assert step(paused, is_overdue=True).attempt == 2


def test_the_pause_doubles_with_each_attempt_up_to_the_time_of_a_round():
    run, pauses = with_rounds(FIRST, **SEVERAL), []
    for _ in range(6):
        run = then(run, DeadlinePassed(), is_overdue=True)
        pauses.append(step(run).remaining_s)
        run = advance_run(run, RetryPostponed(pauses[-1]))
    assert pauses == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_the_pause_begins_anew_with_the_next_round():
    run = with_rounds(then(FIRST, DeadlinePassed()), count=3, **SEVERAL)
    again = then(advance_run(run, RetryPostponed(5.0)), is_overdue=True)
    assert again.hold is None
    third = then(published(reduce(advance_run, [sent("a"), sent("b"), sent("c")], again)))
    assert step(advance_run(third, DeadlinePassed())) == RetryPostponed(5.0)


@pytest.mark.parametrize("event", [RetryPostponed(5.0), SitesAwaited(5.0)])
def test_a_restart_goes_on_with_the_hold_that_there_was(event):
    held = with_rounds(then(FIRST, DeadlinePassed(), event), **SEVERAL)
    again = advance_run(held, Restarted(3.0))
    assert (again.hold, again.left_s) == (held.hold, 3.0)
    assert again.round == held.round


def test_a_round_does_not_open_before_enough_sites_are_connected():
    waiting = with_rounds(FIRST, minimum_sites=3, wait_for_sites_s=500.0)
    assert step(waiting, connected=frozenset("abx")) == SitesAwaited(500.0)
    held = advance_run(waiting, SitesAwaited(500.0))
    assert step(held, connected=frozenset("ab")) == Await()
    assert step(held, connected=ALL).number == 2


def test_sites_that_stay_away_fail_the_run_with_a_reason():
    waiting = with_rounds(FIRST, minimum_sites=3, wait_for_sites_s=500.0)
    failed = step(
        advance_run(waiting, SitesAwaited(500.0)), connected=frozenset("a"), is_overdue=True
    )
    assert failed == RunFailed(
        "1 of the rounds.minimum_sites = 3 gateways needed were connected "
        "within rounds.wait_for_sites_s = 500 seconds"
    )


def test_the_first_round_needs_its_sites_too():
    gathered = with_rounds(GATHERED, minimum_sites=3, wait_for_sites_s=500.0)
    assert step(gathered, connected=frozenset("ab")) == SitesAwaited(500.0)
    assert step(gathered).number == 1


def test_refusals_that_leave_too_few_sites_fail_the_run():
    run = with_rounds(fold(RunStarted(60.0), no("a")), minimum_sites=3)
    assert "rounds.minimum_sites needs 3 to accept it" in step(run).reason


def test_after_a_pause_a_round_waits_for_its_sites():
    run = with_rounds(then(FIRST, DeadlinePassed(), RetryPostponed(5.0)), minimum_sites=3)
    held = advance_run(run, step(run, connected=frozenset("a"), is_overdue=True))
    assert held.hold is Hold.SITES
    assert (step(held).number, step(held).attempt) == (2, 2)


@pytest.mark.parametrize("event", [RetryPostponed(5.0), SitesAwaited(5.0)])
def test_there_is_no_hold_while_a_round_is_open(event):
    for run in (COLLECTING, AGGREGATING):
        with pytest.raises(IllegalTransition):
            advance_run(run, event)


@pytest.mark.parametrize("run", [GATHERED, FIRST, advance_run(FIRST, SitesAwaited(5.0))])
def test_only_an_abandoned_round_is_postponed(run):
    with pytest.raises(IllegalTransition):
        advance_run(run, RetryPostponed(5.0))


def test_an_operator_is_told_why_no_round_is_open():
    abandoned = then(FIRST, DeadlinePassed())
    retry = why_on_hold(advance_run(abandoned, RetryPostponed(5.0)), ALL)
    assert retry.startswith("round 2 will be opened again: 0 of the 2 updates needed")
    waiting = advance_run(with_rounds(FIRST, minimum_sites=3), SitesAwaited(5.0))
    assert "2 of the rounds.minimum_sites = 3" in why_on_hold(waiting, frozenset("ab"))
    ended = (advance_run(waiting, RunCancelled()), advance_run(abandoned, RunCancelled()))
    assert [why_on_hold(run, ALL) for run in (FIRST, *ended)] == ["", "", ""]


def test_a_round_of_a_target_invites_that_many_and_those_beyond_it():
    opened = step(with_rounds(GATHERED, quorum=1, target=1, over_selection=1))
    assert (len(opened.invited), opened.target, opened.quorum) == (2, 1, 1)
    assert opened == step(with_rounds(GATHERED, quorum=1, target=1, over_selection=1))


def test_a_retry_invites_again_those_who_were_told_of_the_round():
    run = then(with_rounds(GATHERED, quorum=1, target=1, over_selection=1), DeadlinePassed())
    assert step(run).attempt == 2
    assert set(step(run).invited) == run.round.invited


def test_who_left_before_an_over_selected_round_is_invited_after_those_who_are_here():
    run = with_rounds(GATHERED, quorum=1, target=1, over_selection=1)
    for gone in "abc":
        away = frozenset(gone)
        assert gone not in step(run, connected=ALL - away, left=away).invited


def test_who_was_told_but_came_after_the_target_has_an_invitation_and_no_membership():
    run = with_rounds(GATHERED, quorum=1, target=1, over_selection=2)
    run = published(advance_run(then(run), sent("b")))
    assert run.invitations == {"a": 1, "b": 1, "c": 1}
    assert run.memberships == {"b": 1}
    assert step(run).invited == ("a", "b", "c")


def test_the_maximum_counts_abandoned_rounds_too():
    run = then(FIRST, DeadlinePassed())
    run = then(run, DeadlinePassed())
    failed = step(run)
    assert run.opened == 3
    assert failed.reason.startswith("rounds.maximum = 3 rounds were opened; the last was abandoned")


def test_a_plan_may_end_a_run_with_its_first_abandoned_round():
    end = ROUNDS.model_copy(update={"when_abandoned": WhenAbandoned.END})
    plan = PLAN.model_copy(update={"rounds": end})
    run = then(fold(RunStarted(1.0), yes("a"), yes("b"), yes("c"), plan=plan), DeadlinePassed())
    assert step(run).reason.startswith("round 1 was abandoned: 0 of the 2 updates needed")


def test_who_was_silent_is_left_out_until_it_is_back():
    run = published(then(FIRST, sent("a"), sent("b"), DeadlinePassed()))
    more = run.plan.model_copy(
        update={"rounds": ROUNDS.model_copy(update={"count": 9, "maximum": 9})}
    )
    run = replace(run, plan=more)
    here = frozenset("ab")
    assert absent(run) == {"c"}
    third = then(run, sent("a"), sent("b"), connected=here)
    assert third.round.invited == here
    fourth = published(third)
    assert step(fourth, connected=here).invited == ("a", "b")
    assert step(fourth, connected=ALL).invited == ("a", "b", "c")


def test_invitations_count_rounds_and_memberships_count_published_ones():
    run = then(then(FIRST, sent("a"), DeadlinePassed()), sent("a"), sent("b"), sent("c"))
    run = published(run)
    assert run.invitations == {"a": 2, "b": 2, "c": 2}
    assert run.memberships == {"a": 2, "b": 2, "c": 2}
    assert (run.opened, run.published) == (3, 2)


def test_scores_of_a_round_and_split_are_kept_once_even_after_the_end():
    better = replace(SCORES, f1=0.75)
    run = fold(RunStarted(1.0), ScoresRecorded(SCORES), RunCancelled(), ScoresRecorded(better))
    assert run.scores == (better,)


def test_the_time_left_is_that_of_what_goes_on():
    assert GATHERED.left_s == 50.0
    assert advance_run(GATHERED, Restarted(11.0)).left_s == 11.0
    assert advance_run(COLLECTING, Restarted(9.0)).left_s == 9.0


ENDED = advance_run(FIRST, RunCancelled())
EVERY = [
    RunStarted(1.0),
    yes("a"),
    no("a"),
    RoundOpened(2, 1, "1" * 64, ("a", "b"), 2, 60.0),
    sent("a"),
    GatewayDeclined("a", NO, 1.0),
    UpdateLost("a"),
    DeadlinePassed(),
    RoundPublished("1" * 64, None, ("a",)),
    RoundAbandoned("why"),
    RunCompleted("1" * 64, "1" * 64),
    RunFailed("why"),
    RetryPostponed(1.0),
    SitesAwaited(1.0),
]


@pytest.mark.parametrize("event", EVERY)
def test_a_run_that_has_ended_stays_as_it_is(event):
    with pytest.raises(IllegalTransition, match="cancelled"):
        advance_run(ENDED, event)


def test_ending_a_run_is_repeatable():
    assert advance_run(ENDED, RunCancelled()) is ENDED
    assert advance_run(ENDED, Restarted(1.0)) is ENDED


def test_nothing_happens_in_a_round_before_one_is_opened():
    with pytest.raises(IllegalTransition, match="opened no round"):
        advance_run(GATHERED, sent("a"))


def test_a_run_starts_once():
    with pytest.raises(IllegalTransition, match="running"):
        advance_run(COLLECTING, RunStarted(1.0))


class Simulation:
    """A run driven by the pure core alone; `crash_before` an event, memory is lost."""

    def __init__(self, order: list[str], crash_before: frozenset[int]) -> None:
        self.plan = plan_of(
            "a", "b", "c", rounds=Rounds(count=3, maximum=9, quorum=3, deadline_s=9)
        )
        self.order, self.crashes = order, crash_before
        self.events = [RunStarted(9.0), yes("a"), yes("b"), yes("c")]
        self.run = fold(*self.events, plan=self.plan)
        self.sum: Accumulator | None = None
        self.blobs = {INITIAL.digest: INITIAL.values}  # durable
        self.states = {None: b""}

    def record(self, event) -> None:
        if len(self.events) in self.crashes:
            self.crashes -= {len(self.events)}
            self.sum = None
            self.events.append(Restarted(9.0))
            self.run = fold(*self.events, plan=self.plan)  # all that a new process has
        else:
            self.events.append(event)
            self.run = advance_run(self.run, event)
            if isinstance(event, UpdateAccepted):
                self.add(event.gateway)

    def add(self, gateway: str) -> None:
        if self.sum is None:
            self.sum = Accumulator(LAYOUT.size, sum(map(self.plan.weight, "abc")))
        values = difference(gateway, self.run.round.number)
        self.sum.add(gateway, InMemory(values), self.plan.weight(gateway))

    def to_the_end(self) -> bytes:
        while not isinstance(decision := step(self.run), Complete):
            match decision:
                case Await():
                    waiting = [g for g in self.order if g in self.run.round.silent]
                    self.record(sent(waiting[0]))
                case Publish():
                    self.publish()
                case _:
                    self.record(decision)
        state = OptimizerState.from_bytes(self.states[self.run.optimizer_state])
        return final_model(self.blobs[self.run.weights], state, self.plan.server, 3).tobytes()

    def publish(self) -> None:
        run, key = self.run, f"{self.run.published + 1}" * 64
        state = OptimizerState.from_bytes(self.states[run.optimizer_state])
        self.blobs[key], state = server_step(
            self.blobs[run.weights],
            mean_of(self.sum),
            state,
            self.plan.server,
            published_round=run.published + 1,
            count=3,
        )
        self.states[key] = state.to_bytes()
        self.record(RoundPublished(key, key, tuple(run.round.received)))
        self.sum = None


UNDISTURBED = Simulation(["a", "b", "c"], frozenset()).to_the_end()


@settings(deadline=None)  # a busy machine proves nothing
@given(st.permutations(["a", "b", "c"]), st.frozensets(st.integers(4, 30), max_size=8))
def test_crashes_anywhere_and_any_order_lead_to_the_same_model(order, crash_before):
    assert Simulation(order, crash_before).to_the_end() == UNDISTURBED


@pytest.mark.parametrize("place", range(4, 20))
def test_a_crash_before_each_event_leads_to_the_same_model(place):
    assert Simulation(["a", "b", "c"], frozenset({place})).to_the_end() == UNDISTURBED


def test_the_simulation_can_tell_models_apart():
    assert np.frombuffer(UNDISTURBED, dtype=np.float32).size == LAYOUT.size
    assert INITIAL.values.tobytes() != UNDISTURBED
