"""Epsilon to the last digit, and against what is known in closed form or by another conversion."""

from __future__ import annotations

import math

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from common.accounting import PrivacyEvent, epsilon, epsilon_pld, epsilon_replace_one
from tests.golden.epsilon_table import CASES

pytestmark = pytest.mark.usefixtures("no_warning")

CLASSIC_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
TUTORIAL = {"A": 3.0083, "B": 1.1921, "C": 7.1013}


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
