"""Two runs side by side, from their states and plans."""

from __future__ import annotations

from dataclasses import replace

from cli.comparison import compare
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.plan import Privacy
from common.protocol import GatewayStatus, RunState, RunStatus, ScoreSet
from tests.fakes import EFFECTIVE, plan_of

PLAN = plan_of("a", "b")
STATUS = RunStatus(
    RunId("first"),
    "n",
    RunState.RUNNING,
    PlanId("c" * 64),
    rounds=10,
    published_round=4,
    gateways=(
        GatewayStatus(GatewayId("a"), True, True, 4, 4, EFFECTIVE),
        GatewayStatus(GatewayId("b"), True, True, 2, 2, EFFECTIVE),
    ),
    scores=tuple(
        ScoreSet(n, "dev", WeightsId("d" * 64), f1, f1, f1, 9) for n, f1 in ((1, 0.5), (2, 0.75))
    ),
    bytes_received=1000,
    bytes_sent=2000,
)


def test_what_is_the_same_differs_in_nothing():
    found = compare((STATUS, PLAN), (STATUS, PLAN))
    assert found.differ == ()
    assert found.runs[0] == found.runs[1]


def test_settings_that_differ_are_named_with_both_values():
    privacy = Privacy(delta=1e-6, target_epsilon=8.0)
    other = PLAN.model_copy(update={"privacy": privacy})
    found = compare((STATUS, PLAN), (STATUS, other))
    assert "privacy.delta" in found.differ
    assert found.settings["privacy.delta"] == (PLAN.privacy.delta, 1e-6)
    assert not any("layout" in name for name in found.settings)


def test_results_are_the_best_f1_the_largest_epsilon_and_the_bytes():
    less = replace(STATUS, run_id=RunId("second"), gateways=STATUS.gateways[1:], scores=())
    first, second = compare((STATUS, PLAN), (less, PLAN)).runs
    assert (first.f1_dev, first.f1_test, second.f1_dev) == (0.75, None, None)
    assert first.epsilon > second.epsilon > 0
    assert (first.bytes_received, first.bytes_sent) == (1000, 2000)


def test_seeded_noise_has_no_epsilon():
    seeded = replace(STATUS.gateways[0], answer=replace(EFFECTIVE, insecure_deterministic=True))
    status = replace(STATUS, gateways=(seeded, STATUS.gateways[1]))
    assert compare((status, PLAN), (STATUS, PLAN)).runs[0].epsilon is None
