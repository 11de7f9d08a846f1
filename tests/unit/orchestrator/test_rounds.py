from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.protocol import Refusal, RefusalReason
from orchestrator.events import (
    DeadlinePassed,
    GatewayDeclined,
    Restarted,
    RoundAbandoned,
    RoundOpened,
    RoundPublished,
    UpdateAccepted,
    UpdateLost,
)
from orchestrator.rounds import IllegalTransition, Phase, Round, advance, opened

NO = Refusal(RefusalReason.FAILED)
OPENED = RoundOpened(1, 1, "0" * 64, ("a", "b", "c"), 2, 60.0)


def accepted(gateway: str, digest: str = "") -> UpdateAccepted:
    return UpdateAccepted(gateway, digest or f"digest of {gateway}", 30.0)


def declined(gateway: str) -> GatewayDeclined:
    return GatewayDeclined(gateway, NO, 20.0)


def published(*members: str) -> RoundPublished:
    return RoundPublished("1" * 64, None, members)


def after(*events) -> Round:
    return reduce(advance, events, opened(OPENED))


COLLECTING = after(accepted("a"))
AGGREGATING = after(accepted("a"), accepted("b"), DeadlinePassed())
CLOSED = advance(AGGREGATING, published("a", "b"))
ABANDONED = after(accepted("a"), DeadlinePassed())
AWAITING = after(accepted("a"), Restarted(9.0))

TWO_OF_FOUR = RoundOpened(1, 1, "0" * 64, ("a", "b", "c", "d"), 1, 60.0, target=2)

SAME, ILLEGAL = "same", "illegal"
TABLE = [  # state, event, what comes: a phase, the same state, or a refusal
    (COLLECTING, accepted("b"), Phase.COLLECTING),
    (COLLECTING, accepted("a"), SAME),
    (COLLECTING, accepted("a", "another"), ILLEGAL),
    (COLLECTING, accepted("foreign"), ILLEGAL),
    (COLLECTING, declined("b"), Phase.COLLECTING),
    (COLLECTING, declined("a"), ILLEGAL),
    (COLLECTING, declined("foreign"), ILLEGAL),
    (COLLECTING, UpdateLost("a"), ILLEGAL),
    (COLLECTING, UpdateLost("b"), ILLEGAL),
    (COLLECTING, DeadlinePassed(), Phase.ABANDONED),
    (COLLECTING, RoundAbandoned("why"), Phase.ABANDONED),
    (COLLECTING, Restarted(5.0), Phase.COLLECTING),
    (COLLECTING, published("a"), ILLEGAL),
    (COLLECTING, OPENED, ILLEGAL),
    (AWAITING, accepted("a"), Phase.COLLECTING),
    (AWAITING, accepted("a", "another"), ILLEGAL),
    (AWAITING, accepted("b"), Phase.COLLECTING),
    (AWAITING, declined("a"), Phase.COLLECTING),
    (AWAITING, UpdateLost("a"), Phase.COLLECTING),
    (AWAITING, DeadlinePassed(), ILLEGAL),
    (AWAITING, Restarted(5.0), Phase.COLLECTING),
    (AGGREGATING, accepted("a"), SAME),
    (AGGREGATING, accepted("c"), ILLEGAL),
    (AGGREGATING, declined("c"), ILLEGAL),
    (AGGREGATING, UpdateLost("c"), ILLEGAL),
    (AGGREGATING, DeadlinePassed(), SAME),
    (AGGREGATING, RoundAbandoned("why"), Phase.ABANDONED),
    (AGGREGATING, Restarted(5.0), Phase.COLLECTING),
    (AGGREGATING, published("a", "b"), Phase.CLOSED),
    (AGGREGATING, published("a", "c"), ILLEGAL),
    (AGGREGATING, OPENED, ILLEGAL),
    (CLOSED, accepted("a"), SAME),
    (CLOSED, accepted("c"), ILLEGAL),
    (CLOSED, declined("c"), ILLEGAL),
    (CLOSED, UpdateLost("c"), ILLEGAL),
    (CLOSED, DeadlinePassed(), SAME),
    (CLOSED, RoundAbandoned("why"), ILLEGAL),
    (CLOSED, Restarted(5.0), SAME),
    (CLOSED, published("a", "b"), ILLEGAL),
    (CLOSED, OPENED, Phase.COLLECTING),
    (ABANDONED, accepted("a"), SAME),
    (ABANDONED, accepted("c"), ILLEGAL),
    (ABANDONED, declined("c"), ILLEGAL),
    (ABANDONED, UpdateLost("c"), ILLEGAL),
    (ABANDONED, DeadlinePassed(), SAME),
    (ABANDONED, RoundAbandoned("why"), SAME),
    (ABANDONED, Restarted(5.0), SAME),
    (ABANDONED, published("a"), ILLEGAL),
    (ABANDONED, OPENED, Phase.COLLECTING),
]


@pytest.mark.parametrize(("state", "event", "expected"), TABLE)
def test_every_event_in_every_phase_has_an_outcome(state, event, expected):
    if expected is ILLEGAL:
        with pytest.raises(IllegalTransition, match=type(event).__name__):
            advance(state, event)
    elif expected is SAME:
        assert advance(state, event) is state
    else:
        assert advance(state, event).phase is expected


def test_the_table_holds_every_pair_of_phase_and_event():
    kinds = (UpdateAccepted, GatewayDeclined, UpdateLost, DeadlinePassed, RoundAbandoned)
    kinds += (Restarted, RoundPublished, RoundOpened)
    tried = {(state.phase, type(event)) for state, event, _ in TABLE}
    assert tried == {(phase, kind) for phase in Phase for kind in kinds}


def test_a_round_closes_when_all_have_answered():
    assert after(accepted("a"), declined("b"), accepted("c")).phase is Phase.AGGREGATING


def test_at_the_deadline_a_quorum_is_enough():
    assert after(accepted("a"), accepted("b"), DeadlinePassed()).phase is Phase.AGGREGATING


def test_a_deadline_without_quorum_ends_the_round_with_a_reason():
    assert ABANDONED.reason == "1 of the 2 updates needed came by the deadline"


def test_an_unreachable_quorum_ends_the_round_at_once_with_a_reason():
    state = after(declined("a"), declined("b"))
    assert state.phase is Phase.ABANDONED
    assert state.reason == (
        "at most 1 of the 2 updates needed can still come: 2 declined, 0 lost "
        "(the last one declined: failed)"
    )


def test_a_restart_awaits_what_was_received_with_its_digest():
    state = after(accepted("a"), accepted("b"), Restarted(7.0))
    assert state.awaited == {"a": "digest of a", "b": "digest of b"}
    assert (state.received, state.remaining_s) == ({}, 7.0)


def test_an_awaited_update_does_not_count_for_the_quorum():
    lost = (UpdateLost("a"), UpdateLost("b"))
    state = after(accepted("a"), accepted("b"), Restarted(7.0), *lost)
    assert state.phase is Phase.ABANDONED
    assert advance(state, UpdateLost("a")) is state


def test_what_is_lost_after_the_quorum_is_out_of_reach_is_lost_all_the_same():
    events = (accepted("a"), accepted("b"), declined("c"), Restarted(7.0))
    state = after(*events, UpdateLost("a"))
    assert state.phase is Phase.ABANDONED
    ended = advance(advance(state, UpdateLost("b")), DeadlinePassed())
    assert (ended.lost, ended.awaited) == ({"a", "b"}, {})
    assert ended.phase is Phase.ABANDONED


def test_what_came_again_closes_the_round_without_what_was_lost():
    again = (accepted("a"), accepted("c"), UpdateLost("b"))
    state = after(accepted("a"), accepted("b"), Restarted(7.0), *again)
    assert state.phase is Phase.AGGREGATING
    assert state.received.keys() == {"a", "c"}


def test_those_who_said_nothing_are_silent():
    assert after(accepted("a"), declined("b")).silent == {"c"}


def over_selected(*events) -> Round:
    """Four are invited, two are enough."""
    return reduce(advance, events, opened(TWO_OF_FOUR))


def test_a_round_closes_as_soon_as_its_target_has_come():
    state = over_selected(accepted("d"), accepted("b"))
    assert state.phase is Phase.AGGREGATING
    assert state.received.keys() == {"b", "d"}


def test_what_comes_after_the_target_changes_nothing():
    full = over_selected(accepted("d"), accepted("b"))
    with pytest.raises(IllegalTransition):
        advance(full, accepted("a"))
    assert not any(full.wants(gateway) for gateway in "abcd")


def test_a_round_that_cannot_reach_its_target_waits_for_all_that_can_come():
    state = over_selected(accepted("a"), declined("b"), declined("c"))
    assert state.phase is Phase.COLLECTING
    assert advance(state, declined("d")).phase is Phase.AGGREGATING


def test_at_the_deadline_less_than_the_target_is_enough_if_it_is_the_quorum():
    assert over_selected(accepted("a"), DeadlinePassed()).phase is Phase.AGGREGATING


def test_after_a_restart_the_places_are_kept_for_those_who_were_acknowledged():
    state = over_selected(accepted("a"), accepted("b"), Restarted(9.0))
    assert [gateway for gateway in "abcdx" if state.wants(gateway)] == ["a", "b"]
    with pytest.raises(IllegalTransition):
        advance(state, accepted("c"))
    again = reduce(advance, [accepted("b"), accepted("a")], state)
    assert (again.phase, again.received.keys()) == (Phase.AGGREGATING, {"a", "b"})


def test_the_place_of_one_who_declines_after_a_restart_is_free_for_another():
    state = over_selected(accepted("a"), accepted("b"), Restarted(9.0), declined("b"))
    assert [gateway for gateway in "abcd" if state.wants(gateway)] == ["a", "c", "d"]
    again = reduce(advance, [accepted("c"), accepted("a")], state)
    assert again.received.keys() == {"a", "c"}


EVENTS = st.one_of(
    st.builds(accepted, st.sampled_from("abcx")),
    st.builds(declined, st.sampled_from("abcx")),
    st.builds(UpdateLost, st.sampled_from("abcx")),
    st.sampled_from([DeadlinePassed(), Restarted(5.0), RoundAbandoned("why"), OPENED]),
    st.builds(published, st.sampled_from("abc")),
)


@given(st.lists(EVENTS, max_size=30))
def test_whatever_comes_the_counts_stay_disjoint_and_invited(events):
    state = opened(OPENED)
    for event in events:
        try:
            state = advance(state, event)
        except IllegalTransition:
            continue
    groups = [set(state.received), set(state.awaited), set(state.declined), set(state.lost)]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert set().union(*groups) <= state.invited
    if state.phase in {Phase.AGGREGATING, Phase.CLOSED}:
        assert len(state.received) >= state.quorum
