"""kill -9 of either side at any write of a round: the same model, one charge a round."""

from __future__ import annotations

import pytest

from common.protocol import RunState
from tests.faults.federation import SITES, Federation

pytestmark = pytest.mark.timeout(300)

ORCHESTRATOR_POINTS = {
    "before an update is journalled": "orchestrator.journal:Journal.append:before:UpdateAccepted:4",
    "after an update is journalled": "orchestrator.journal:Journal.append:after:UpdateAccepted:5",
    "before a head is kept": "orchestrator.ledger_heads:LedgerHeads.confirm:before::4",
    "while a head is kept": "orchestrator.ledger_heads:_keep:after::5",
    "after a head is kept": "orchestrator.ledger_heads:LedgerHeads.confirm:after::6",
    "before the weights are stored": "orchestrator.weight_store:WeightStore.put:before::3",
    "before the round is published": "orchestrator.journal:Journal.append:before:RoundPublished:2",
    "after the round is published": "orchestrator.journal:Journal.append:after:RoundPublished:2",
}
GATEWAY_POINTS = {
    "before its charge": "gateway.ledger:Ledger.charge:before::2",
    "between its charge and the record": "gateway.ledger_chain:append:before::2",
    "after the record, before the commit": "gateway.ledger_chain:append:after::2",
    "after its charge": "gateway.ledger:Ledger.charge:after::2",
    "while training": "gateway.local_round:apply_dp:after::4",
    "before its update is on disk": "gateway.updates:UpdateStore.keep:before::2",
    "after its update is on disk": "gateway.updates:UpdateStore.keep:after::2",
    "before its update is recorded": "gateway.ledger:Ledger.record_update:before::2",
    "after its update is recorded": "gateway.ledger:Ledger.record_update:after::2",
    "while sending": "gateway.client:GrpcClient.submit_update:first::2",
    "after the receipt": "gateway.client:GrpcClient.submit_update:after::2",
    "before the countersignature is kept": "gateway.ledger:Ledger.confirm:before::2",
    "after the countersignature is kept": "gateway.ledger:Ledger.confirm:after::2",
    "before its secret is erased": "gateway.ledger:Ledger.release:before::2",
    "after its secret is erased": "gateway.ledger:Ledger.release:after::2",
}


# where the engines might differ: around commits, and inside a transaction; what lies before a round
# is published is in test_failover.py
OVER_POSTGRESQL = (
    "before an update is journalled",
    "after an update is journalled",
    "while a head is kept",
    "after the round is published",
)


@pytest.fixture
def federation(request, tmp_path):
    """Three gateways that will be needed in each of three rounds."""
    engine = getattr(request, "param", "sqlite")
    server = request.getfixturevalue("postgresql") if engine == "postgresql" else None
    started = Federation(tmp_path, server)
    yield started
    started.close()


@pytest.mark.parametrize(
    ("point", "federation"),
    [
        *((point, "sqlite") for point in ORCHESTRATOR_POINTS),
        *((point, "postgresql") for point in OVER_POSTGRESQL),
    ],
    indirect=["federation"],
)
def test_an_orchestrator_killed_gives_the_same_model(federation, undisturbed, point):
    federation.start_orchestrator(ORCHESTRATOR_POINTS[point])
    for site in SITES:
        federation.start_gateway(site)
    federation.start_run()
    federation.wait_for_death("orchestrator")
    federation.restart("orchestrator")
    assert federation.completed() == undisturbed


@pytest.mark.parametrize("point", GATEWAY_POINTS.values(), ids=GATEWAY_POINTS.keys())
def test_a_gateway_killed_gives_the_same_model(federation, undisturbed, point):
    federation.start_orchestrator()
    federation.start_gateway(SITES[0], point)
    for site in SITES[1:]:
        federation.start_gateway(site)
    federation.start_run()
    federation.wait_for_death(SITES[0])
    federation.restart(SITES[0])
    assert federation.completed() == undisturbed


def test_a_round_closes_with_its_quorum_when_a_gateway_never_comes_back(tmp_path):
    federation = Federation(tmp_path, quorum=2, deadline_s=25.0)
    try:
        federation.start_orchestrator()
        federation.start_gateway(SITES[0], GATEWAY_POINTS["while training"])
        for site in SITES[1:]:
            federation.start_gateway(site)
        federation.start_run()
        status = federation.finish()
        assert status.state is RunState.COMPLETED, status
        counted = {each.gateway: each.rounds_counted for each in status.gateways}
        assert counted == {"alder": 1, "birch": 3, "cedar": 3}
    finally:
        federation.close()


def test_a_gateway_that_missed_a_deadline_joins_the_next_round_and_has_paid_for_all(tmp_path):
    federation = Federation(tmp_path, quorum=2, deadline_s=25.0, minimum_sites=3)
    try:
        federation.start_orchestrator()
        federation.start_gateway(SITES[0], GATEWAY_POINTS["while training"])
        for site in SITES[1:]:
            federation.start_gateway(site)
        federation.start_run()
        federation.wait_for_death(SITES[0])
        federation.until(lambda: federation.happened("SitesAwaited"), "two rounds without it")
        federation.restart(SITES[0])
        status = federation.finish()
        assert status.state is RunState.COMPLETED, status
        rounds = {g.gateway: (g.rounds_invited, g.rounds_counted) for g in status.gateways}
        assert rounds == {"alder": (3, 2), "birch": (3, 3), "cedar": (3, 3)}
        ledger = federation.ledger(SITES[0])
        assert [charge.round for charge in ledger.charges()] == [1, 2, 3]
        ledger.close()
    finally:
        federation.close()
