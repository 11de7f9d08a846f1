"""What the page says of a run: functions of its state."""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.accounting import PrivacyEvent, epsilon
from common.bad_updates import UpdateRefusalReason
from common.hyperparameters import Overrides
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.plan import Privacy
from common.protocol import Effective, GatewayStatus, Refusal, RefusalReason
from common.renyi import epsilon_renyi
from common.web import words
from common.web.values import VALUE_NAMES, Value
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
from orchestrator.rounds import Phase, Refused, Round
from orchestrator.runs import begin
from orchestrator.status import Observed, status_of
from orchestrator.web import view
from orchestrator.web.chart import chart_of
from orchestrator.web.history import rows_after
from tests.fakes import EFFECTIVE, plan_of

A, B = GatewayId("a"), GatewayId("b")
UPDATE = WeightsId("7" * 64)
EVERYTHING = Refusal(RefusalReason.FAILED)
OPEN = Round(1, 1, UPDATE, frozenset({A}), 1, 60.0)
NOWHERE = Observed(frozenset(), 0.0, 0, 0)


def seen(
    state: Round | None,
    *,
    answer: Effective | Refusal | None = EFFECTIVE,
    sent: view.Sent = view.NOTHING_SENT,
    connected: bool = True,
) -> view.Seen:
    """Return a run of gateways a and b, of which a has answered."""
    run = begin(RunId("r"), plan_of("a", "b"), PlanId("1" * 64))
    answers = {} if answer is None else {A: answer}
    run = replace(run, round=state, answers=answers, invitations={A: 1})
    observed = Observed(frozenset({A}) if connected else frozenset(), 30.0, 0, 0)
    return view.Seen(run, status_of(run, observed), {A: sent}, ())


@pytest.mark.parametrize(
    ("situation", "word"),
    [
        (seen(None, answer=None), "has not answered the plan"),
        (seen(None, answer=EVERYTHING), "refused the plan"),
        (seen(None), "accepted the plan"),
        (seen(replace(OPEN, invited=frozenset({B}))), "not invited"),
        (seen(OPEN), "training"),
        (seen(OPEN, connected=False), "away"),
        (seen(OPEN, sent=view.Sent(100)), "uploading"),
        (seen(replace(OPEN, awaited={A: UPDATE})), "must send again"),
        (seen(replace(OPEN, received={A: UPDATE})), "in"),
        (seen(replace(OPEN, set_aside={A: UPDATE})), "set aside"),
        (seen(replace(OPEN, refused={A: Refused(UPDATE, UpdateRefusalReason.NORM)})), "refused"),
        (seen(replace(OPEN, declined={A: RefusalReason.FAILED})), "declined"),
        (seen(replace(OPEN, declined={A: RefusalReason.PAUSED})), "paused"),
        (seen(replace(OPEN, lost=frozenset({A}))), "late"),
        (seen(replace(OPEN, phase=Phase.CLOSED)), "late"),
        (seen(replace(OPEN, target=1, received={B: UPDATE})), "not needed"),
    ],
)
def test_a_gateway_stands_where_the_round_says(situation, word):
    assert view.gateway_rows(situation)[0].place.word == word


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (view.Sent(100), "100 B of 188 B"),
        (view.Sent(100, 50.4), "100 B of 188 B, 50 B a second"),
        (view.Sent(300, 2048.0), "300 B, 2.0 KiB a second"),  # it was sent again
    ],
)
def test_an_upload_says_how_much_has_come_and_how_fast(sent, said):
    assert view.gateway_rows(seen(OPEN, sent=sent))[0].place.why == said


@pytest.mark.parametrize("rounds", [1, 10, 200])
@pytest.mark.parametrize(("noise", "rate"), [(1.0, 0.1), (4.0, 0.5), (20.0, 1.0)])
def test_the_epsilon_that_is_shown_is_never_below_what_was_spent(rounds, noise, rate):
    how = EFFECTIVE.hyperparameters.model_copy(
        update={"noise_multiplier": noise, "sampling_rate": rate}
    )
    spent = epsilon([PrivacyEvent(noise, rate, how.local_steps * rounds)], 1e-5)
    promise = Privacy(delta=1e-5, target_epsilon=1e9)
    run = begin(RunId("r"), plan_of("a", privacy=promise), PlanId("1" * 64))
    status = GatewayStatus(A, True, False, rounds, rounds, Effective(how))
    shown = view.epsilon_at_most(run, status)
    assert spent.pld <= shown <= 1.01 * spent.rdp + 0.01


def test_the_epsilon_that_is_shown_is_never_above_what_the_plan_promises():
    run = begin(RunId("r"), plan_of("a"), PlanId("1" * 64))
    status = GatewayStatus(A, True, False, 10_000, 10_000, EFFECTIVE)
    assert view.epsilon_at_most(run, status) == run.plan.privacy.target_epsilon


def test_of_seeded_noise_no_epsilon_is_shown():
    rows = view.gateway_rows(seen(OPEN, answer=replace(EFFECTIVE, insecure_deterministic=True)))
    assert rows[0].spent == view.SEEDED


def test_where_nothing_was_run_nothing_was_spent():
    assert epsilon_renyi({}, 1e-5) == epsilon_renyi({(1.0, 0.1): 0}, 1e-5) == 0.0


def test_each_value_says_where_it_came_from():
    plan = plan_of("a", profiles={"a": Overrides(local_steps=3, momentum=0.0)})
    own = plan.assigned("a").model_copy(update={"learning_rate": 0.05})
    run = replace(begin(RunId("r"), plan, PlanId("1" * 64)), answers={A: Effective(own)})
    values = view.values_of(plan, status_of(run, NOWHERE))[0].values
    found = dict(zip(VALUE_NAMES, values, strict=True))
    assert found["learning_rate"] == Value("0.05", "override")
    assert found["local_steps"] == Value("3", "profile")
    assert found["clipping_norm"] == Value("1", "default")


def test_what_a_gateway_trains_with_is_not_told_before_it_has_accepted():
    run = begin(RunId("r"), plan_of("a"), PlanId("1" * 64))
    assert view.values_of(run.plan, status_of(run, NOWHERE))[0].values == ()


def test_a_round_says_how_many_are_in_and_how_long_it_waits():
    declined = {B: RefusalReason.FAILED}
    state = replace(OPEN, invited=frozenset({A, B}), received={A: UPDATE}, declined=declined)
    assert (
        view.round_line(seen(state))
        == "collecting: 1 of 2 updates in, quorum 1, 1 declined, 30 s left"
    )
    assert view.round_line(seen(None)) == ""


def test_sizes_and_times_are_said_in_units_that_fit():
    assert [words.size(n) for n in (5, 2048, 3 << 20)] == ["5 B", "2.0 KiB", "3.0 MiB"]
    assert [words.duration(s) for s in (5, 125, 7500)] == ["5 s", "2 min 5 s", "2 h 5 min"]


def test_a_member_is_called_by_role_and_name():
    assert view.member("fed://acme/operator/olga") == "operator olga"
    assert view.member("orchestrator") == "orchestrator"


def opened(number: int, attempt: int = 1) -> RoundOpened:
    return RoundOpened(number, attempt, UPDATE, (A, B), 1, 60.0)


def test_the_rounds_of_a_run_are_told_one_by_one():
    rows = rows_after(
        (),
        [
            opened(1),
            UpdateAccepted(A, UPDATE, 55.0),
            UpdateRefused(B, UPDATE, UpdateRefusalReason.NORM, 50.0),
            RoundPublished(UPDATE, None, (A,)),
            opened(2),
            UpdateSetAside(A, UPDATE, 40.0),
            GatewayDeclined(B, EVERYTHING, 30.0),
            RoundAbandoned("no weights"),
        ],
    )
    assert [row.outcome for row in rows] == ["published", "abandoned: no weights"]
    first, second = rows
    assert (first.received, first.refused, first.took_s) == (1, 1, 10.0)
    assert (second.set_aside, second.declined, second.took_s) == (1, 1, 30.0)


def test_rounds_are_told_alike_at_once_and_bit_by_bit():
    events = [opened(1), UpdateAccepted(A, UPDATE, 55.0), DeadlinePassed(), opened(1, 2)]
    rows = ()
    for event in events:
        rows = rows_after(rows, [event])
    assert rows == rows_after((), events)
    assert [row.outcome for row in rows] == ["abandoned", "open"]
    assert rows[0].took_s == 60.0


def test_a_restart_and_what_it_lost_are_told_too():
    accepted = UpdateAccepted(A, UPDATE, 30.0)
    rows = rows_after((), [opened(1), accepted, Restarted(60.0), UpdateLost(A)])
    assert (rows[0].received, rows[0].lost, rows[0].took_s) == (0, 1, 30.0)


def test_an_update_that_came_again_after_a_restart_is_one():
    accepted = UpdateAccepted(A, UPDATE, 30.0)
    rows = rows_after((), [opened(1), accepted, Restarted(60.0), accepted])
    assert rows[0].received == 1


@pytest.mark.parametrize("end", [RunFailed("too few"), RunCancelled()])
def test_a_round_that_is_open_when_its_run_ends_is_abandoned(end):
    assert rows_after((), [opened(1), end])[0].outcome == "abandoned"


def test_a_chart_holds_every_value_between_its_ends():
    chart = chart_of([(1, 43.5), (2, 60.1), (7, 71.3)], last=12)
    assert [tick.text for tick in chart.up] == ["40", "50", "60", "70", "80"]
    assert [tick.text for tick in chart.across] == ["0", "5", "10"]
    assert all(chart.up[-1].at <= y <= chart.up[0].at for _, y in chart.dots)
    xs = [x for x, _ in chart.dots]
    assert xs == sorted(xs)


@pytest.mark.parametrize("points", [[], [(1, 50.0)], [(1, 0.0), (2, 0.0)], [(3, 1e-9), (4, 2e-9)]])
def test_a_chart_of_little_or_nothing_is_one(points):
    chart = chart_of(points, last=4)
    assert len(chart.up) >= 2
    assert len(chart.dots) == len(points)


def test_a_long_run_is_a_line_without_dots():
    chart = chart_of([(n, float(n)) for n in range(200)], last=200)
    assert chart.dots == ()
    assert chart.line.count(",") == 200
