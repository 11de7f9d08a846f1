"""The settings that "A federation by hand" starts a federation with can be used as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.config import OperatorConfig
from common.config import load_settings
from gateway.config import GatewayConfig
from gateway.policy import Accepted, review
from orchestrator.config import OrchestratorConfig
from tasks.ner.corpora import site_sizes
from tasks.plan_file import read_plan

EXAMPLES = Path(__file__).parents[3] / "examples" / "letters"


def test_the_orchestrator_and_the_operator_meet_at_one_address():
    orchestrator = load_settings(OrchestratorConfig, EXAMPLES / "orchestrator.toml")
    assert load_settings(OperatorConfig, EXAMPLES / "operator.toml").address == orchestrator.address


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_gateway_takes_the_plan(number):
    plan, _ = read_plan(EXAMPLES / "plan.toml")
    settings = load_settings(GatewayConfig, EXAMPLES / f"gateway-{number}.toml")
    name = f"gateway-{number}"
    verdict = review(plan, name, settings.hyperparameters, settings.policy, ())
    assert isinstance(verdict, Accepted)
    participant = plan.participant(name)
    assert participant is not None
    sizes = site_sizes("letters", unit=plan.privacy.unit)
    assert participant.declared_units == sizes[str(settings.data.site)]
