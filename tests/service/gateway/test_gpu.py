"""A gateway's rounds on a GPU: the same update as on the processor, but for rounding."""

from __future__ import annotations

import pytest

from common.hyperparameters import Overrides
from common.randomness import InsecureSeed
from common.update_form import Update
from common.weights import Weights
from gateway.choices import GradientsBy
from gateway.gateway import DeliveredWeights, Gateway, Site, SiteRules, TrainRound
from gateway.ledger import Ledger
from gateway.policy import Accepted, Policy
from gateway.training import flat_parameters
from gateway.updates import UpdateStore
from tests.gpu import DEVICES
from tests.unit.gateway.toys import CLINIC, LABELS, LAYOUT, PLAN, RUN, Examples, Toy, model, plan


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("gradients", list(GradientsBy))
def test_an_update_is_that_of_the_processor(tmp_path, device, gradients):
    found, expected = (
        trained(tmp_path / f"{n}", where, gradients) for n, where in enumerate((device, "cpu"))
    )
    assert found.form == expected.form
    assert found.values == pytest.approx(expected.values, abs=1e-4)
    assert abs(found.values).max() > 0.01


def trained(folder, device: str, gradients: GradientsBy) -> Update:
    """Train one round with seeded randomness."""
    folder.mkdir()
    site = Site(
        task=Toy(),
        model=model().to(device),
        labels=LABELS,
        dataset=Examples(),
        specimens=Examples(8, seed=5).batch(range(8)),
        micro_batch=7,
        gradients=gradients,
    )
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", seed=InsecureSeed(3, CLINIC))
    rules = SiteRules(CLINIC, "letters", Policy(epsilon_budget=1e30), Overrides())
    gateway = Gateway(site, ledger, UpdateStore(folder / "updates"), rules)
    start = Weights(LAYOUT, flat_parameters(model()).numpy())
    ordered = plan().model_copy(update={"initial_weights": start.digest})
    assert isinstance(gateway.accept(RUN, ordered, PLAN), Accepted)
    update = gateway.fed_round(TrainRound(RUN, 1, DeliveredWeights(start.digest, start)))
    ledger.close()
    return update
