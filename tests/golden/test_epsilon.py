"""Epsilon against published figures and against accountants that are not ours."""

from __future__ import annotations

import logging
import math

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from common.accounting import PrivacyEvent, epsilon, epsilon_pld, epsilon_rdp, epsilon_replace_one

MNIST = 256 / 60000
CASES = {  # mechanisms, delta: PLD, RDP, to the last digit
    "A": ([PrivacyEvent(1.1, MNIST, 14062)], 1e-5, 2.38169, 2.59656),
    "B": ([PrivacyEvent(1.3, MNIST, 3515)], 1e-5, 0.86446, 0.95443),
    "C": ([PrivacyEvent(0.7, MNIST, 10546)], 1e-5, 5.63945, 6.31946),
    "D": ([PrivacyEvent(1.5, 0.04, 2250)], 1e-5, 6.76879, 7.32933),
    "E": ([PrivacyEvent(1.0, 64 / 5000, 2000)], 1e-6, 3.86475, 4.21519),
    "F": ([PrivacyEvent(0.6, 64 / 5000, 2000)], 1e-6, 14.40145, 16.05097),
    "G": (
        [
            PrivacyEvent(1.0, 64 / 5000, 1000),
            PrivacyEvent(0.8, 0.02, 300),
            PrivacyEvent(1.5, 64 / 5000, 700),
        ],
        1e-6,
        5.27423,
        5.95877,
    ),
    "H": ([PrivacyEvent(10.0, 1.0, 100)], 1e-6, 4.88655, 5.22154),
    "I": ([PrivacyEvent(0.8, 0.05, 1000)], 1e-6, 19.51503, 21.22392),
    "J": ([PrivacyEvent(0.8, 0.001, 100)], 1e-6, 0.26034, 1.37107),
    "K": ([PrivacyEvent(3.0, 0.2, 100)], 1e-6, 3.37106, 3.63967),
    "L": ([PrivacyEvent(2.0, 0.05, 20000)], 1e-6, 24.41097, 25.83791),
    "M": ([PrivacyEvent(1.0, 0.3, 200)], 1e-5, 34.49669, 38.68620),
}
CLASSIC_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
TUTORIAL = {"A": 3.0083, "B": 1.1921, "C": 7.1013}
OPACUS_PRV = [  # noise multiplier, sampling rate, steps, Opacus PRV, ours is this much lower
    (0.8, 0.001, 100, 0.27040),
    (3.0, 0.2, 100, 3.38122),
    (1.5, 0.001, 100, 0.03937),
    (2.0, 0.05, 100, 1.28364),
    (0.8, 0.2, 100, 24.33366),
    (1.5, 0.001, 1000, 0.09982),
    (1.5, 0.05, 1000, 6.20997),
    (3.0, 0.05, 1000, 2.52757),
    (0.8, 0.05, 1000, 19.52584),
    (0.8, 0.001, 20000, 1.29601),
    (2.0, 0.05, 20000, 24.42172),
    (3.0, 0.001, 50000, 0.30969),
]


@pytest.fixture(autouse=True)
def _no_warning(caplog):
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("case", CASES)
def test_both_accountants_give_the_reference_figures(case):
    events, delta, pld, rdp = CASES[case]
    spent = epsilon(events, delta)
    assert (round(spent.pld, 5), round(spent.rdp, 5)) == (pld, rdp)


def test_exchanging_one_unit_costs_more_than_adding_or_removing_it():
    events = [PrivacyEvent(1.0, 0.0128, 2000)]
    assert round(epsilon_replace_one(events, 1e-6), 3) == 6.203
    assert round(epsilon_pld(events, 1e-6), 3) == 3.865


@pytest.mark.parametrize("case", TUTORIAL)
def test_the_tutorials_figures_are_those_of_the_classic_conversion(case):
    (event,), delta, _, modern = CASES[case]
    sampled = PoissonSampledDpEvent(event.sampling_rate, GaussianDpEvent(event.noise_multiplier))
    curve = RdpAccountant(CLASSIC_ORDERS).compose(sampled, event.steps).rdp
    classic = min(r - math.log(delta) / (a - 1) for a, r in zip(CLASSIC_ORDERS, curve, strict=True))
    assert round(classic, 4) == TUTORIAL[case]
    assert modern < classic


def test_the_gaussian_mechanism_agrees_with_its_closed_form():
    (event,), delta, pld, _ = CASES["H"]
    mu = math.sqrt(event.steps) / event.noise_multiplier

    def excess(eps):
        above = norm.cdf(mu / 2 - eps / mu)
        return above - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu) - delta

    assert round(brentq(excess, 0.1, 20, xtol=1e-12), 5) == pld


def test_opacus_publishes_the_same_rdp_and_prv_as_it_gives_here():
    rdp, prv = RDPAccountant(), PRVAccountant()
    rdp.history, prv.history = [(1.5, 0.04, 2250)], [(1.5, 0.04, 2249)]
    assert rdp.get_epsilon(delta=1e-5) == pytest.approx(7.32911117143, abs=5e-11)
    assert prv.get_epsilon(delta=1e-5) == pytest.approx(6.777395712150674, abs=5e-9)
    assert epsilon_rdp(CASES["D"][0], 1e-5) == pytest.approx(7.32911, abs=5e-4)


@pytest.mark.parametrize(("sigma", "rate", "steps", "published"), OPACUS_PRV)
@pytest.mark.filterwarnings("ignore:Optimal order is the largest alpha:UserWarning")
def test_prv_gives_its_published_figure_and_ours_lies_below_by_its_error_term(
    sigma, rate, steps, published
):
    prv = PRVAccountant()
    prv.history = [(sigma, rate, steps)]
    assert round(float(prv.get_epsilon(delta=1e-6)), 5) == published
    ours = epsilon_pld([PrivacyEvent(sigma, rate, steps)], 1e-6)
    assert 0.0075 <= published - ours <= 0.0115
