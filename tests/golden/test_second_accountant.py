"""The second accountant against dp-accounting's two, and against closed forms."""

from __future__ import annotations

import math

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant

from common.accounting import INTEGER_ORDERS, Epsilon, PrivacyEvent, epsilon, epsilon_rdp
from common.renyi import divergence
from common.second_accountant import agrees, epsilon_second

# the table of docs/explanation/privacy.md, but for G
ROWS = {
    "A": (PrivacyEvent(1.1, 256 / 60000, 14062), 1e-5),
    "B": (PrivacyEvent(1.3, 256 / 60000, 3515), 1e-5),
    "C": (PrivacyEvent(0.7, 256 / 60000, 10546), 1e-5),
    "D": (PrivacyEvent(1.5, 0.04, 2250), 1e-5),
    "E": (PrivacyEvent(1.0, 64 / 5000, 2000), 1e-6),
    "F": (PrivacyEvent(0.6, 64 / 5000, 2000), 1e-6),
    "H": (PrivacyEvent(10.0, 1.0, 100), 1e-6),
    "I": (PrivacyEvent(0.8, 0.05, 1000), 1e-6),
    "J": (PrivacyEvent(0.8, 0.001, 100), 1e-6),
    "K": (PrivacyEvent(3.0, 0.2, 100), 1e-6),
    "L": (PrivacyEvent(2.0, 0.05, 20000), 1e-6),
}


@pytest.mark.parametrize(("event", "delta"), ROWS.values(), ids=ROWS.keys())
def test_it_agrees_with_dp_accountings_rdp_within_a_hundredth(event, delta):
    second, first = epsilon_second([event], delta), epsilon_rdp([event], delta)
    assert second == pytest.approx(first, rel=0.01)
    assert second <= first * (1 + 1e-6)


@pytest.mark.parametrize(
    ("sigma", "rate"), [(0.5, 0.5), (0.7, 0.004), (1.0, 0.3), (1.5, 0.04), (8.0, 0.5), (3.0, 0.9)]
)
def test_each_orders_divergence_is_dp_accountings(sigma, rate):
    event = PoissonSampledDpEvent(rate, GaussianDpEvent(sigma))
    theirs = RdpAccountant(INTEGER_ORDERS).compose(event).rdp
    ours = [divergence(order, sigma, rate) for order in INTEGER_ORDERS]
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-12)


def test_without_sampling_it_is_the_gaussian_mechanisms():
    assert divergence(3, 2.0, 1.0) == 3 / 8
    assert divergence(3, 2.0, 1 - 1e-9) == pytest.approx(3 / 8, rel=1e-6)


def test_steps_add_up_whatever_their_order_and_nothing_costs_nothing():
    one, other = PrivacyEvent(2.0, 0.1, 30), PrivacyEvent(1.5, 0.2, 10)
    parts = [PrivacyEvent(2.0, 0.1, 10), other, PrivacyEvent(2.0, 0.1, 20)]
    assert epsilon_second(parts, 1e-5) == pytest.approx(epsilon_second([one, other], 1e-5))
    assert epsilon_second([], 1e-5) == epsilon_second([PrivacyEvent(1.0, 0.1, 0)], 1e-5) == 0.0


def test_next_to_no_noise_is_no_protection_and_takes_no_memory():
    event = PrivacyEvent(1e-4, 0.5, 1)
    assert epsilon_second([event], 1e-5) == math.inf
    assert agrees(epsilon([event], 1e-5), math.inf)
    assert not agrees(Epsilon(pld=2.0, rdp=3.0, delta=1e-5), math.inf)


@pytest.mark.parametrize(
    ("event", "delta"),
    [*ROWS.values(), (PrivacyEvent(1.0, 0.3, 200), 1e-5), (PrivacyEvent(0.5, 0.5, 100), 1e-5)],
)
def test_what_the_ledger_prints_is_borne_out(event, delta):
    assert agrees(epsilon([event], delta), epsilon_second([event], delta))


@pytest.mark.parametrize(("second", "is_borne_out"), [(1.9, False), (2.0, True), (3.1, False)])
def test_a_figure_that_two_do_not_share_is_noticed(second, is_borne_out):
    assert agrees(Epsilon(pld=2.0, rdp=3.0, delta=1e-5), second) is is_borne_out
