"""The clipping norm over steps, rounds, crashes and runs: one path, whatever happens in between."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from common.adaptive_clipping import AdaptiveClipping
from common.ids import RunId
from gateway.choices import GradientsBy
from gateway.dp_sgd import count_within
from gateway.functional import FunctionalGradients
from gateway.policy import Accepted, Refused
from tests.service.gateway.test_fed_round import HOW, ONE_STEP, Clinic, Killed
from tests.unit.gateway.toys import PLAN, RUN, Examples, loss

BOUNDS = AdaptiveClipping(smallest=1e-3, largest=100.0)
MOVING = HOW.model_copy(
    update={"noise_multiplier": 3.0, "sampling_rate": 1.0, "adaptive_clipping": BOUNDS}
)
STILL = MOVING.model_copy(  # the model hardly moves, so the gradients stay the same
    update={"learning_rate": 1e-12, "local_steps": 1, "clipping_norm": 20.0}
)
QUIET = {"noise_multiplier": 1e-9, "local_steps": 1}
SEED = 11


@pytest.fixture
def folders(tmp_path):
    """Make clinics, each in a folder of its own."""
    made = []

    def make(**changes) -> Clinic:
        made.append(Clinic(tmp_path / str(len(made)), **changes))
        made[-1].folder.mkdir()
        return made[-1]

    yield make
    for clinic in made:
        if clinic.ledger is not None:
            clinic.ledger.close()


@pytest.fixture
def clinic(folders) -> Clinic:
    return folders()


def changed(how=MOVING, adaptive: AdaptiveClipping = BOUNDS, **changes):
    return how.model_copy(update={"adaptive_clipping": adaptive, **changes})


def begun_with(clinic: Clinic) -> list[float]:
    """The clipping norms that the booked rounds began with."""
    return [booked.clipping_norm for booked in clinic.ledger.charges()]


def norms_of(clinic: Clinic) -> torch.Tensor:
    """The true norms of the examples' gradients at the first weights."""
    every = clinic.examples.batch(range(len(clinic.examples)))
    rows = FunctionalGradients(clinic.net, loss, lambda _: every, 1000).of(clinic.start, every)
    return torch.linalg.vector_norm(rows.double(), dim=1)


@pytest.mark.parametrize("how", GradientsBy)
def test_the_next_round_begins_with_what_the_count_leads_to(clinic, how):
    """With next to no noise, against plain norms; 37 units, of which the plan declares 40."""
    clinic.examples = Examples(37)
    norms = norms_of(clinic)
    first = float(norms.median())
    slow = BOUNDS.model_copy(update={"count_noise": 1e-8, "target_quantile": 0.25})
    quiet = changed(STILL, slow, **QUIET, clipping_norm=first)
    gateway = clinic.begun(quiet, gradients=how)
    for number in (1, 2, 3):
        gateway.fed_round(clinic.train(number))
    expected = [first]
    for _ in range(2):
        fraction = count_within(norms, expected[-1]) / 40 + 0.5
        expected.append(expected[-1] * math.exp(-0.2 * (fraction - 0.25)))
    assert begun_with(clinic) == pytest.approx(expected, rel=2e-3)


def test_every_step_of_a_round_moves_the_norm(clinic):
    """Every gradient is far longer, so each step goes up by rate times quantile."""
    quiet = changed(
        MOVING,
        BOUNDS.model_copy(update={"count_noise": 1e-8}),
        clipping_norm=1e-3,
        local_steps=3,
        noise_multiplier=1e-9,
        learning_rate=1e-12,
    )
    gateway = clinic.begun(quiet)
    for number in (1, 2):
        gateway.fed_round(clinic.train(number))
    assert begun_with(clinic) == pytest.approx([1e-3, 1e-3 * math.exp(3 * 0.2 * 0.5)], rel=1e-6)


def test_over_rounds_the_norm_comes_to_the_wanted_quantile(clinic):
    """With the noise that is paid for: 2 of 40 on each count."""
    quick = BOUNDS.model_copy(update={"target_quantile": 0.3, "rate": 0.6})
    gateway = clinic.begun(changed(STILL, quick), rounds=30, seed=SEED)
    for number in range(1, 31):
        gateway.fed_round(clinic.train(number))
    found = np.median(begun_with(clinic)[20:])
    low, high = np.quantile(norms_of(clinic).numpy(), [0.2, 0.4])
    assert low < found < high < 20.0


def test_an_empty_batch_is_counted_and_moves_the_norm(clinic):
    """There is only the count's noise, over next to no units expected: all the way to an end."""
    loud = BOUNDS.model_copy(update={"count_noise": 5.0})
    gateway = clinic.begun(changed(ONE_STEP, loud, sampling_rate=1e-9))
    for number in (1, 2):
        assert (gateway.fed_round(clinic.train(number)).values != 0).all()
    assert begun_with(clinic)[1] in {BOUNDS.smallest, BOUNDS.largest}


def test_an_example_that_is_not_finite_leaves_norm_and_update_finite(clinic):
    clinic.examples.inputs[3, 0] = math.nan
    gateway = clinic.begun(MOVING)
    for number in (1, 2):
        assert np.isfinite(gateway.fed_round(clinic.train(number)).values).all()
    assert BOUNDS.smallest <= begun_with(clinic)[1] <= BOUNDS.largest


def test_what_is_booked_is_what_fixed_clipping_costs(clinic):
    clinic.begun(MOVING).fed_round(clinic.train())
    (booked,) = clinic.ledger.charges()
    assert (booked.event.noise_multiplier, booked.event.steps) == (3.0, HOW.local_steps)


def test_fixed_clipping_keeps_its_norm(clinic):
    gateway = clinic.begun(HOW)
    for number in (1, 2):
        gateway.fed_round(clinic.train(number))
    assert begun_with(clinic) == [HOW.clipping_norm] * 2


def undisturbed(folders, rounds: int = 4) -> tuple[list[bytes], list[float]]:
    clinic = folders()
    gateway = clinic.begun(MOVING, seed=SEED)
    updates = [gateway.fed_round(clinic.train(n)).to_bytes() for n in range(1, rounds + 1)]
    return updates, begun_with(clinic)


def test_a_restart_between_rounds_changes_nothing(folders, clinic):
    updates, norms = undisturbed(folders)
    assert len(set(norms)) == 4
    again = []
    for number in range(1, 5):
        gateway = clinic.begun(MOVING, seed=SEED)
        again.append(gateway.fed_round(clinic.train(number)).to_bytes())
    assert (again, begun_with(clinic)) == (updates, norms)


@pytest.mark.parametrize("reads", [1, 2, 4])
def test_killed_in_any_round_it_gives_the_same_bytes_and_the_same_norms(folders, clinic, reads):
    updates, norms = undisturbed(folders)
    again = []
    for number in range(1, 5):
        left = [reads]

        def kill(_rows, left=left) -> None:
            left[0] -= 1
            if not left[0]:
                raise Killed

        clinic.examples.on_read = kill
        with pytest.raises(Killed):
            clinic.begun(MOVING, seed=SEED).fed_round(clinic.train(number))
        clinic.examples.on_read = lambda _: None
        again.append(clinic.begun(MOVING, seed=SEED).fed_round(clinic.train(number)).to_bytes())
    assert (again, begun_with(clinic)) == (updates, norms)


def test_an_update_that_was_lost_is_made_again_and_moves_the_norm_no_further(folders, clinic):
    updates, norms = undisturbed(folders)
    gateway = clinic.begun(MOVING, seed=SEED)
    for number in range(1, 5):
        update = gateway.fed_round(clinic.train(number))
        (clinic.folder / "updates" / update.digest).unlink()
        assert gateway.fed_round(clinic.train(number)).to_bytes() == updates[number - 1]
    assert begun_with(clinic) == norms


def test_a_round_begins_again_with_its_own_norm_whatever_came_to_be_known_since(clinic):
    """Round 1 is cut short and made up for after round 2: round 2 must not begin anew with it."""
    gateway = clinic.begun(MOVING)

    def kill(_rows) -> None:
        raise Killed

    clinic.examples.on_read = kill
    with pytest.raises(Killed):
        gateway.fed_round(clinic.train(1))
    clinic.examples.on_read = lambda _: None
    second = gateway.fed_round(clinic.train(2))
    gateway.fed_round(clinic.train(1))
    (clinic.folder / "updates" / second.digest).unlink()
    assert clinic.begun(MOVING).fed_round(clinic.train(2)).to_bytes() == second.to_bytes()
    gateway = clinic.begun(MOVING)
    gateway.fed_round(clinic.train(3))
    first, again, third = begun_with(clinic)
    assert first == again == MOVING.clipping_norm != third


def test_published_rounds_hand_their_norm_on(folders, clinic):
    updates, norms = undisturbed(folders)
    gateway, again = clinic.begun(MOVING, seed=SEED), []
    for number in range(1, 5):
        again.append(gateway.fed_round(clinic.train(number)).to_bytes())
        clinic.ledger.release(RUN, number)
    assert (again, begun_with(clinic)) == (updates, norms)


def test_every_run_begins_with_its_plans_norm_and_keeps_its_own(folders, clinic):
    gateway, other = clinic.begun(MOVING, seed=SEED), RunId("run-2")
    assert isinstance(gateway.accept(other, clinic.plan(MOVING), PLAN), Accepted)
    for number in (1, 2):
        for run in (RUN, other):
            gateway.fed_round(clinic.train(number, run=run))
    found = {(b.terms.run, b.round): b.clipping_norm for b in clinic.ledger.charges()}
    assert found[RUN, 1] == found[other, 1] == MOVING.clipping_norm
    assert found[RUN, 2] == undisturbed(folders, 2)[1][1] != found[other, 2]


def test_the_norm_that_a_round_began_with_is_in_the_ledgers_chain(clinic):
    gateway = clinic.begun(MOVING)
    for number in (1, 2):
        gateway.fed_round(clinic.train(number))
    facts = [record.content for record in clinic.ledger.records()]
    assert [each["clipping_norm"] for each in facts] == begun_with(clinic)
    assert json.loads(facts[0]["effective"])["clipping_norm"] == MOVING.clipping_norm


def test_a_run_goes_on_with_the_way_of_clipping_that_it_was_begun_with(clinic):
    clinic.begun(MOVING).fed_round(clinic.train(1))
    assert isinstance(clinic.restart().accept(RUN, clinic.plan(MOVING), PLAN), Accepted)
    gateway = clinic.restart()
    other = clinic.plan(changed(MOVING, BOUNDS.model_copy(update={"rate": 0.3})))
    verdict = gateway.accept(RUN, other, PLAN)
    assert isinstance(verdict, Refused)
    assert "effective" in verdict.sentence
