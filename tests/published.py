"""A run that has published its rounds, as its lineage tells it; nothing was trained."""

from __future__ import annotations

from dataclasses import replace

from common import wire
from common.ids import GatewayId, RunId, WeightsId
from common.lineage import Origin, Signed
from common.plan import Plan, Rounds
from orchestrator.events import RoundPublished, RunCompleted
from orchestrator.fencing import Fence
from orchestrator.lineage_store import LineageStore
from orchestrator.rounds import Phase, Round
from orchestrator.runs import begin
from tests.fakes import EFFECTIVE, plan_of
from tests.on_record import key

RUN = RunId("r")
MEMBERS = (GatewayId("a"), GatewayId("b"))


def plan_of_rounds(count: int) -> Plan:
    """Return the plan of a run of `count` rounds."""
    rounds = Rounds(count=count, maximum=count, quorum=1, deadline_s=60.0)
    return plan_of(*MEMBERS, rounds=rounds)


def published_rounds(fence: Fence, count: int) -> tuple[Origin, tuple[Signed, ...]]:
    """Write the lineage of a completed run; return what it begins with, and its statements."""
    plan = plan_of_rounds(count)
    digest = wire.plan_id(wire.plan_to_bytes(plan))
    store = LineageStore(fence, "acme", key)
    run = replace(begin(RUN, plan, digest), answers=dict.fromkeys(MEMBERS, EFFECTIVE))
    for number in range(1, count + 1):
        received = {name: WeightsId(f"{name}{number}" * 32) for name in MEMBERS}
        closed = Round(
            number,
            1,
            run.weights,
            frozenset(MEMBERS),
            1,
            0.0,
            phase=Phase.CLOSED,
            received=received,
        )
        made = RoundPublished(WeightsId(f"c{number}" * 32), None, MEMBERS, f"d{number}" * 32)
        run = replace(
            run,
            round=closed,
            published=number,
            weights=made.weights,
            invitations=dict.fromkeys(MEMBERS, number),
        )
        with fence.writing() as connection:
            store.publish(connection, run, made)
    with fence.writing() as connection:
        store.complete(connection, run, RunCompleted(run.weights, "e" * 64))
    return Origin("acme", RUN, digest, plan.initial_weights), tuple(store.statements(RUN))
