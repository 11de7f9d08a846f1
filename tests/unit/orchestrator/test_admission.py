from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest

from common.adaptive_clipping import AdaptiveClipping
from common.errors import RequestError
from common.hyperparameters import Bounds, Range
from common.plan import Rounds
from common.protocol import (
    Body,
    Effective,
    Refusal,
    RefusalReason,
    UpdateHeader,
    UpdateKey,
    Versions,
)
from orchestrator.admission import (
    AlreadyAccepted,
    AlreadyAnswered,
    AnswerChanged,
    NotInvited,
    OutsideBounds,
    RoundFull,
    RoundNotOpen,
    RunEnded,
    TaskMissing,
    WrongParent,
    WrongPlan,
    check_answer,
    check_header,
    check_task,
    has_declined,
    is_counted,
)
from orchestrator.events import (
    DeadlinePassed,
    GatewayDeclined,
    PlanAccepted,
    Restarted,
    RoundOpened,
    RunCancelled,
    RunStarted,
    UpdateAccepted,
)
from orchestrator.runs import advance_run, begin
from tests.fakes import EFFECTIVE, HYPERPARAMETERS, INITIAL, VERSIONS, plan_of

PLAN = plan_of("a", "b", "c", rounds=Rounds(count=2, maximum=3, quorum=1, deadline_s=60.0))
DIGEST = "2" * 64
NO = Refusal(RefusalReason.FAILED)
KEY = UpdateKey("r", 1)


def fold(*events):
    return reduce(advance_run, events, begin("r", PLAN, DIGEST))


OPEN = fold(
    RunStarted(60.0),
    PlanAccepted("a", EFFECTIVE, 1.0),
    RoundOpened(1, 1, INITIAL.digest, ("a", "b"), 1, 60.0),
)
RECEIVED = advance_run(OPEN, UpdateAccepted("a", "4" * 64, 1.0))
DECLINED = advance_run(OPEN, GatewayDeclined("a", NO, 1.0))
CLOSING = advance_run(RECEIVED, DeadlinePassed())
AWAITING = advance_run(RECEIVED, Restarted(1.0))
ENDED = advance_run(OPEN, RunCancelled())
FULL = fold(
    RunStarted(60.0),
    PlanAccepted("a", EFFECTIVE, 1.0),
    RoundOpened(1, 1, INITIAL.digest, ("a", "b"), 1, 60.0, target=1),
    UpdateAccepted("a", "4" * 64, 1.0),
)
FULL_AGAIN = advance_run(FULL, Restarted(1.0))


def test_an_invited_gateway_may_send():
    assert not is_counted(OPEN, "a", KEY, "4" * 64)


def test_the_same_update_again_is_counted_already():
    assert is_counted(RECEIVED, "a", KEY, "4" * 64)
    assert is_counted(CLOSING, "a", KEY, "4" * 64)


def test_an_awaited_update_may_come_again():
    assert not is_counted(AWAITING, "a", KEY, "4" * 64)
    assert not is_counted(FULL_AGAIN, "a", KEY, "4" * 64)


def test_a_round_that_has_its_target_says_so():
    with pytest.raises(RoundFull, match="has the 1 updates that it takes: this one is not"):
        is_counted(FULL, "b", KEY, "5" * 64)


@pytest.mark.parametrize(
    ("run", "gateway", "key", "error"),
    [
        (OPEN, "stranger", KEY, NotInvited),
        (OPEN, "c", KEY, NotInvited),
        (OPEN, "a", UpdateKey("r", 2), RoundNotOpen),
        (fold(RunStarted(1.0)), "a", KEY, RoundNotOpen),
        (CLOSING, "b", KEY, RoundNotOpen),
        (FULL, "b", KEY, RoundFull),
        (FULL_AGAIN, "b", KEY, RoundFull),
        (FULL_AGAIN, "a", KEY, AlreadyAnswered),
        (RECEIVED, "a", KEY, AlreadyAnswered),
        (AWAITING, "a", KEY, AlreadyAnswered),
        (DECLINED, "a", KEY, AlreadyAnswered),
        (ENDED, "a", KEY, RunEnded),
    ],
)
def test_late_foreign_and_second_updates_are_refused(run, gateway, key, error):
    with pytest.raises(error):
        is_counted(run, gateway, key, "5" * 64)


def test_an_update_names_the_plan_and_the_parent_of_its_round():
    header = UpdateHeader(KEY, DIGEST, INITIAL.digest, Body("4" * 64, 10))
    check_header(OPEN, header)
    with pytest.raises(WrongPlan):
        check_header(OPEN, replace(header, plan_digest="3" * 64))
    with pytest.raises(WrongParent):
        check_header(OPEN, replace(header, parent="3" * 64))


def test_a_round_can_be_declined_once():
    assert not has_declined(OPEN, "a", KEY)
    assert has_declined(DECLINED, "a", KEY)
    with pytest.raises(AlreadyAnswered, match="sent an update"):
        has_declined(RECEIVED, "a", KEY)
    with pytest.raises(RoundNotOpen):
        has_declined(CLOSING, "b", KEY)


def test_a_repeated_answer_passes_even_after_the_end():
    check_answer(OPEN, "b", DIGEST, EFFECTIVE)
    check_answer(ENDED, "a", DIGEST, EFFECTIVE)


def test_answers_are_refused_for_a_reason():
    hotter = Effective(HYPERPARAMETERS.model_copy(update={"noise_multiplier": 0.5}))
    with pytest.raises(NotInvited):
        check_answer(OPEN, "stranger", DIGEST, EFFECTIVE)
    with pytest.raises(WrongPlan):
        check_answer(OPEN, "a", "3" * 64, EFFECTIVE)
    with pytest.raises(RunEnded):
        check_answer(ENDED, "b", DIGEST, NO)
    with pytest.raises(
        OutsideBounds, match=r"noise_multiplier = 0\.5: the plan requires"
    ) as caught:
        check_answer(OPEN, "b", DIGEST, hotter)
    assert caught.value.field == "noise_multiplier"
    check_answer(OPEN, "b", DIGEST, NO)


ADAPTIVE = HYPERPARAMETERS.model_copy(
    update={
        "noise_multiplier": 1.0,
        "adaptive_clipping": AdaptiveClipping(smallest=0.1, largest=10.0, count_noise=2.0),
    }
)


def adaptive_run():
    loose = Bounds(noise_multiplier=Range(minimum=0.5))
    offered = plan_of("a", "b", hyperparameters=ADAPTIVE, bounds=loose)
    return advance_run(begin("r", offered, DIGEST), RunStarted(60.0))


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        ({"adaptive_clipping": None}, "adaptive_clipping", "= None: the plan requires one of"),
        (
            {"adaptive_clipping": AdaptiveClipping(smallest=0.1, largest=20.0)},
            "adaptive_clipping",
            r"the plan requires one of smallest=0\.1 largest=10\.0",
        ),
        ({"noise_multiplier": 4.0}, "noise_multiplier", r"raise the count's noise above 2\.0"),
    ],
)
def test_a_gateway_that_would_clip_in_another_way_is_refused(changes, field, sentence):
    """As one of an earlier version would, which does not know that clipping may adapt."""
    check_answer(adaptive_run(), "a", DIGEST, Effective(ADAPTIVE))
    with pytest.raises(RequestError, match=sentence) as refused:
        check_answer(adaptive_run(), "a", DIGEST, Effective(ADAPTIVE.model_copy(update=changes)))
    assert refused.value.field == field


def test_an_acceptance_stays_with_its_values():
    with pytest.raises(AnswerChanged, match="which are fixed for this run"):
        check_answer(OPEN, "a", DIGEST, replace(EFFECTIVE, insecure_deterministic=True))
    with pytest.raises(AlreadyAccepted, match="decline its rounds instead"):
        check_answer(OPEN, "a", DIGEST, NO)


def test_an_accepted_plans_task_must_be_installed():
    check_task(OPEN, VERSIONS)
    with pytest.raises(TaskMissing, match="no such task"):
        check_task(OPEN, Versions(1, "0"))
    with pytest.raises(TaskMissing, match="its digest 3333"):
        check_task(OPEN, Versions(1, "0", {"toy": "3" * 64}))
