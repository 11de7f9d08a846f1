"""Rounds with refused updates and gateways in quarantine; what that does to their records."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.bad_updates import Reputation, Standing, UpdateNorm, UpdateRefusalReason
from common.plan import Rounds
from common.protocol import Refusal, RefusalReason
from orchestrator.events import (
    DeadlinePassed,
    GatewayDeclined,
    GatewayReleased,
    PlanAccepted,
    Restarted,
    RoundOpened,
    RoundPublished,
    RunStarted,
    SitesAwaited,
    UpdateAccepted,
    UpdateRefused,
    UpdateSetAside,
)
from orchestrator.reputation import NOTHING, Record, standing
from orchestrator.rounds import IllegalTransition, Phase, Round, advance, opened
from orchestrator.runs import Run, advance_run, begin
from orchestrator.selection import Presence
from orchestrator.steps import Await, next_step, why_on_hold
from tests.fakes import EFFECTIVE, plan_of

NAMES = ("a", "b", "c")
EVERYONE = Presence(frozenset(NAMES))
OPENED = RoundOpened(1, 1, "0" * 64, NAMES, 2, 60.0, norm_bound=3.0)
WITHOUT_C = RoundOpened(1, 1, "0" * 64, NAMES, 2, 60.0, quarantined=("c",))
NO = Refusal(RefusalReason.FAILED)
COPY = UpdateRefusalReason.COPY


def accepted(gateway: str, norm: float | None = 1.0) -> UpdateAccepted:
    return UpdateAccepted(gateway, f"digest of {gateway}", 30.0, norm)


def refused(gateway: str) -> UpdateRefused:
    return UpdateRefused(gateway, f"digest of {gateway}", COPY, 20.0)


def aside(gateway: str) -> UpdateSetAside:
    return UpdateSetAside(gateway, f"digest of {gateway}", 20.0, 1.0)


def after(*events, of=OPENED) -> Round:
    return reduce(advance, events, opened(of))


def test_a_refused_update_is_an_answer():
    state = after(accepted("a"), accepted("b"), refused("c"))
    assert state.phase is Phase.AGGREGATING
    assert state.received.keys() == {"a", "b"}


def test_a_round_whose_quorum_is_refused_is_abandoned_and_says_so():
    state = after(refused("a"), refused("b"))
    assert state.phase is Phase.ABANDONED
    assert "2 refused" in state.reason


def test_of_a_refused_gateway_nothing_more_is_wanted():
    state = after(refused("a"))
    assert not state.wants("a")
    assert advance(state, refused("a")) is state
    for event in (accepted("a"), aside("a"), GatewayDeclined("a", NO, 1.0)):
        with pytest.raises(IllegalTransition):
            advance(state, event)


def test_what_was_counted_cannot_be_refused():
    with pytest.raises(IllegalTransition):
        after(accepted("a"), refused("a"))


def test_a_refusal_outlives_a_restart():
    state = after(accepted("a"), refused("c"), Restarted(9.0))
    assert state.refused.keys() == {"c"}
    assert state.awaited.keys() == {"a"}
    assert state.norms == {"a": 1.0}


def test_nobody_waits_for_a_gateway_in_quarantine():
    assert after(accepted("a"), accepted("b"), of=WITHOUT_C).phase is Phase.AGGREGATING


def test_an_update_from_quarantine_cannot_count():
    with pytest.raises(IllegalTransition):
        after(accepted("c"), of=WITHOUT_C)


def test_an_update_that_is_set_aside_is_no_member_and_stays_so():
    state = after(
        aside("c"), accepted("a"), Restarted(9.0), accepted("a"), accepted("b"), of=WITHOUT_C
    )
    assert state.received.keys() == {"a", "b"}
    assert advance(after(aside("c"), of=WITHOUT_C), aside("c")).set_aside.keys() == {"c"}


def test_only_from_quarantine_is_an_update_set_aside():
    with pytest.raises(IllegalTransition):
        after(aside("a"), of=WITHOUT_C)


def test_a_round_without_its_quorum_says_who_is_in_quarantine():
    state = after(GatewayDeclined("a", NO, 1.0), of=WITHOUT_C)
    assert state.phase is Phase.ABANDONED
    assert "1 in quarantine" in state.reason


def test_the_owner_of_some_bytes_is_known_wherever_they_stand():
    state = after(aside("c"), accepted("a"), Restarted(9.0), accepted("b"), of=WITHOUT_C)
    assert [state.holder_of(f"digest of {name}") for name in NAMES] == list(NAMES)
    assert state.holder_of("another") is None


# whole runs


def begun(count: int = 30, quorum: int = 2, **changes) -> Run:
    """Three gateways that are about to train under the default guards."""
    guards = {"update_norm": UpdateNorm(), "reputation": Reputation(), **changes}
    rounds = Rounds(count=count, maximum=count + 5, quorum=quorum, deadline_s=60.0)
    run = begin("r", plan_of(*NAMES, rounds=rounds, **guards), "2" * 64)
    events = (RunStarted(60.0), *(PlanAccepted(name, EFFECTIVE, 50.0) for name in NAMES))
    return reduce(advance_run, events, run)


def step(run: Run, presence: Presence = EVERYONE):
    return next_step(run, presence, is_overdue=False)


def round_of(run: Run, *events) -> Run:
    """Open a round, let `events` happen in it, publish it."""
    run = reduce(advance_run, (step(run), *events), run)
    if run.round.phase is Phase.COLLECTING:
        run = advance_run(run, DeadlinePassed())
    members = tuple(sorted(run.round.received))
    return advance_run(run, RoundPublished("1" * 64, None, members))


def bad_rounds(run: Run, count: int) -> Run:
    for _ in range(count):
        run = round_of(run, refused("c"), accepted("a"), accepted("b"))
    return run


def test_the_bound_is_frozen_when_a_round_opens():
    run = round_of(begun(), accepted("a", 1.0), accepted("b", 2.0), accepted("c", 9.0))
    opening = step(run)
    assert opening.norm_bound == 6.0
    run = reduce(advance_run, (opening, accepted("a", 50.0), Restarted(9.0)), run)
    assert run.round.norm_bound == 6.0


def test_a_plan_of_before_has_no_bound_and_keeps_no_score():
    run = begun(update_norm=UpdateNorm(mode="off"), reputation=None)
    run = bad_rounds(run, 20)
    assert step(run).norm_bound is None
    assert step(run).quarantined == ()


def test_the_score_is_an_exponential_mean_of_published_rounds():
    run = bad_rounds(begun(), 2)
    assert run.records.of("c").score == pytest.approx(0.36)
    assert run.records.of("c").rounds_refused == 2
    assert run.records.of("a") == NOTHING
    run = round_of(run, *(accepted(name, 1.0) for name in NAMES))
    assert run.records.of("c").score == pytest.approx(0.288)


def test_an_abandoned_round_and_one_without_an_update_leave_the_score():
    run = bad_rounds(begun(), 1)
    before = run.records
    run = reduce(advance_run, (step(run), refused("c"), refused("b")), run)
    assert run.round.phase is Phase.ABANDONED
    assert run.records == before
    run = round_of(advance_run(run, SitesAwaited(1.0)), accepted("a"), accepted("b"))
    assert run.records.of("c") == before.of("c")


def test_five_refused_rounds_in_a_row_lead_into_quarantine():
    assert bad_rounds(begun(), 4).records.quarantined == set()
    run = bad_rounds(begun(), 5)
    assert run.records.quarantined == {"c"}
    opening = step(run)
    assert opening.quarantined == ("c",)
    assert opening.invited == NAMES


def test_a_site_that_is_scaled_down_somewhat_is_watched_and_never_set_aside():
    run = begun(count=100)
    for _ in range(100):
        run = round_of(run, accepted("a"), accepted("b"), accepted("c", 5.0))
    assert run.records.of("c").rounds_clipped == 99  # the first round has no bound
    assert run.records.of("c").score == pytest.approx(1 - 3.0 / 5.0)  # what was not taken
    assert standing(run.records.of("c"), Reputation()) is Standing.WATCH


def test_one_of_which_most_is_cut_off_round_after_round_is_set_aside():
    run = begun()
    while not run.records.quarantined:
        run = round_of(run, accepted("a"), accepted("b"), accepted("c", 29.0))
    assert run.published == 6
    assert run.records.of("c").rounds_refused == 0


def test_quarantine_lasts_until_a_person_ends_it():
    run = bad_rounds(begun(), 5)
    for _ in range(10):
        run = round_of(run, aside("c"), accepted("a"), accepted("b"))
    assert run.records.of("c").score < 0.1
    assert step(run).quarantined == ("c",)
    run = advance_run(run, GatewayReleased("c"))
    assert step(run).quarantined == ()
    assert run.records.of("c").score == 0.0


def test_a_release_changes_no_round_that_is_open():
    run = bad_rounds(begun(), 5)
    run = reduce(advance_run, (step(run), GatewayReleased("c")), run)
    with pytest.raises(IllegalTransition):
        advance_run(run, accepted("c"))


def test_with_too_few_outside_quarantine_no_round_opens_and_the_run_says_why():
    run = begun(quorum=3, reputation=Reputation(watch=0.05, quarantine=0.1))
    run = round_of(run, *map(accepted, NAMES))
    run = round_of(run, accepted("a"), accepted("b"), accepted("c", 25.0))
    waits = step(run)
    assert isinstance(waits, SitesAwaited)
    held = advance_run(run, waits)
    assert step(held) == Await()
    why = "2 of the rounds.quorum = 3 gateways needed are not in quarantine (there are: c; "
    assert why in why_on_hold(held, EVERYONE.connected)
    assert isinstance(step(advance_run(held, GatewayReleased("c"))), RoundOpened)


def test_a_gateway_in_quarantine_takes_no_other_ones_place_and_is_asked_as_often_as_before():
    run = bad_rounds(begun(), 5)
    rounds = Rounds(count=30, maximum=30, quorum=1, target=2, deadline_s=60.0)
    run = replace(run, plan=run.plan.model_copy(update={"rounds": rounds}))
    invited = []
    for _ in range(20):
        opening = step(run)
        assert set(opening.invited) - set(opening.quarantined) == {"a", "b"}
        invited.append(set(opening.invited))
        run = round_of(run, accepted("a"), accepted("b"))
    assert 5 < sum("c" in each for each in invited) < 20  # of two places in three


@given(st.lists(st.sampled_from(["good", "clipped", "refused", "silent"]), max_size=40))
def test_a_record_follows_from_the_journal_alone_and_stays_within_its_range(outcomes):
    events = [RunStarted(60.0), *(PlanAccepted(name, EFFECTIVE, 50.0) for name in NAMES)]
    run = begun(count=100)
    sent = {"good": accepted("c"), "clipped": accepted("c", 5.0), "refused": refused("c")}
    for what in outcomes:
        before = run
        opening = step(before)
        happened = [sent[what]] if what in sent else []
        if happened and isinstance(happened[0], UpdateAccepted) and opening.quarantined:
            happened = [aside("c")]
        for event in (opening, accepted("a"), *happened, accepted("b"), DeadlinePassed()):
            try:
                run = advance_run(run, event)
            except IllegalTransition:
                continue
            events.append(event)
        members = tuple(sorted(run.round.received))
        events.append(RoundPublished("1" * 64, None, members))
        run = advance_run(run, events[-1])
        assert 0.0 <= run.records.of("c").score <= 1.0
    again = reduce(advance_run, events, begin("r", run.plan, "2" * 64))
    assert again.records == run.records
    assert isinstance(again.records.of("c"), Record)
