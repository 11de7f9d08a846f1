"""The line of progress shows what is spent, and at the end exactly that."""

from __future__ import annotations

import asyncio

from cli.demo.progress import Progress
from common.accounting import COARSE_INTERVAL, PrivacyEvent, epsilon_pld
from common.clock import SystemClock
from common.ids import GatewayId, PlanId, RunId
from common.plan import Rounds
from common.protocol import Effective, GatewayStatus, RunState, RunStatus
from tests.fakes import HYPERPARAMETERS, plan_of

SPENT = PrivacyEvent(2.0639, 0.5, 40)  # the letters demo: a hair below its target of 8


def test_the_last_line_does_not_round_above_what_is_promised(capsys):
    assert epsilon_pld([SPENT], 1e-5) <= 8.0 < epsilon_pld([SPENT], 1e-5, interval=COARSE_INTERVAL)
    how = HYPERPARAMETERS.model_copy(
        update={"noise_multiplier": 2.0639, "sampling_rate": 0.5, "local_steps": 1}
    )
    plan = plan_of("a", rounds=Rounds(count=40, maximum=40, quorum=1, deadline_s=1.0))
    gateway = GatewayStatus(GatewayId("a"), True, True, 40, 40, Effective(how))
    status = RunStatus(
        RunId("r"),
        "r",
        RunState.RUNNING,
        PlanId("0" * 64),
        rounds=40,
        published_round=40,
        gateways=(gateway,),
    )
    asyncio.run(Progress(SystemClock()).show(status, plan))
    assert "round 40/40" in (shown := capsys.readouterr().err)
    assert "epsilon 8.00" in shown
