"""Accountants that are not ours: their figures to the last digit, and ours beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from prv_accountant import GaussianMechanism, PoissonSubsampledGaussianMechanism
from prv_accountant import PRVAccountant as MicrosoftAccountant

from common.accounting import PrivacyEvent, epsilon, epsilon_pld
from tests.golden.epsilon_table import CASES, REFEREES

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "privacy.md"
# PRV finds its range by RDP at orders up to 63, and says so where a higher one would be better
FEW_ORDERS = pytest.mark.filterwarnings("ignore:Optimal order is the largest alpha:UserWarning")
# at rate 1 its law of the loss takes the logarithm of zero where there is no mass
NO_MASS = pytest.mark.filterwarnings("ignore:divide by zero encountered in log:RuntimeWarning")
PUBLISHED = [  # noise multiplier, sampling rate, steps: Opacus' and Microsoft's PRV, our PLD
    (0.8, 0.001, 100, "0.2704034", 0.26034),
    (3.0, 0.2, 100, "3.3812205", 3.37106),
    (0.8, 0.05, 1000, "19.5258428", 19.51503),
    # published as 24.4217186: here Opacus gives 24.4217185 and Microsoft's own 24.4217184. Both
    # integrate the mean to 1.5e-8 a step, and these are 20,000 steps
    (2.0, 0.05, 20000, "24.42172", 24.41097),
    (1.5, 0.001, 100, "0.03937", 0.02927),
    (2.0, 0.05, 100, "1.28364", 1.27356),
    (0.8, 0.2, 100, "24.33366", 24.32262),
    (1.5, 0.001, 1000, "0.09982", 0.08988),
    (1.5, 0.05, 1000, "6.20997", 6.19970),
    (3.0, 0.05, 1000, "2.52757", 2.51746),
    (0.8, 0.001, 20000, "1.29601", 1.28615),
    pytest.param(3.0, 0.001, 50000, "0.30969", 0.30190, marks=FEW_ORDERS),
]


def opacus(accountant, events, delta):
    accountant.history = [
        (each.noise_multiplier, each.sampling_rate, each.steps) for each in events
    ]
    return float(accountant.get_epsilon(delta=delta))


def microsoft(events, delta, *, eps_error):
    laws = [
        GaussianMechanism(event.noise_multiplier)
        if event.sampling_rate == 1
        else PoissonSubsampledGaussianMechanism(event.sampling_rate, event.noise_multiplier)
        for event in events
    ]
    steps = [event.steps for event in events]
    return MicrosoftAccountant(laws, eps_error, delta / 1000, steps).compute_epsilon(delta, steps)


@pytest.mark.parametrize("case", CASES)
def test_opacus_rdp_gives_its_reference_figure(case):
    events, delta, *_ = CASES[case]
    assert round(opacus(RDPAccountant(), events, delta), 5) == REFEREES[case].opacus_rdp


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=(FEW_ORDERS, NO_MASS) if case == "H" else ()) for case in CASES],
)
def test_opacus_prv_gives_its_reference_figure(case):
    events, delta, *_ = CASES[case]
    assert round(opacus(PRVAccountant(), events, delta), 5) == REFEREES[case].opacus_prv


@pytest.mark.parametrize("case", CASES)
def test_microsofts_interval_is_the_reference_one_and_holds_our_pld(case):
    events, delta, *_ = CASES[case]
    referees = REFEREES[case]
    bounds = microsoft(events, delta, eps_error=referees.eps_error)
    assert tuple(round(bound, 5) for bound in bounds) == referees.microsoft
    lower, estimate, upper = bounds
    ours = epsilon(events, delta)
    assert lower <= ours.pld <= upper
    assert round(abs(ours.pld - estimate), 4) <= 4e-4
    assert ours.pld <= ours.rdp


def test_opacus_gives_the_figures_of_its_own_test_suite():
    (event,), delta, *_ = CASES["D"]
    rdp = f"{opacus(RDPAccountant(), [event], delta):.13f}"
    assert rdp.startswith("7.32911117143")  # published cut, not rounded: 7.3291111714386
    # published as 6.777395712150674: 2e-10 more than here, far less than the 1.5e-8 a step to which
    # it integrates a mean; its own suite asks for seven decimals. There, 90 epochs at a rate of
    # 0.04 are 2249 steps by integer division
    fewer = PrivacyEvent(event.noise_multiplier, event.sampling_rate, 2249)
    assert round(opacus(PRVAccountant(), [fewer], delta), 9) == round(6.777395712150674, 9)


@pytest.mark.parametrize(("sigma", "rate", "steps", "published", "pld"), PUBLISHED)
def test_prv_gives_its_published_figure_and_pld_lies_below_by_its_error_term(
    sigma, rate, steps, published, pld
):
    events = [PrivacyEvent(sigma, rate, steps)]
    decimals = len(published.partition(".")[2])
    assert f"{opacus(PRVAccountant(), events, 1e-6):.{decimals}f}" == published
    assert round(epsilon_pld(events, 1e-6), 5) == pld
    assert 0.008 <= round(float(published) - pld, 3) <= 0.011


@pytest.mark.parametrize("case", CASES)
def test_the_page_on_privacy_prints_these_figures(case):
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| {case} |")]
    _, _, pld, rdp = CASES[case]
    opacus_rdp, opacus_prv, bounds, _ = REFEREES[case]
    figures = [f"**{pld:.5f}**", *(f"{value:.5f}" for value in (rdp, opacus_rdp, opacus_prv))]
    figures.append(" / ".join(f"{bound:.5f}" for bound in bounds))
    assert [" | ".join(figures) in row for row in rows] == [True]
