"""Epsilon of two hundred drawn histories, held against Microsoft's accountant."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import Phase, assume, given, seed, settings
from hypothesis import strategies as st
from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant
from prv_accountant.privacy_random_variables import PrivacyRandomVariableTruncated
from scipy.integrate import quad

from common.accounting import PrivacyEvent, epsilon_pld, epsilon_rdp

pytestmark = pytest.mark.usefixtures("no_warning")

IN_EACH = 25  # of eight parts, so that all processors share them
INTERVAL = 3e-4  # three times as wide as what is printed has, and three times as quick
WIDEST_GAP = 0.01  # between our bound and the referee's estimate; 0.0036 is the widest drawn
BREAKS = [-1e-1, -1e-2, -1e-3, -1e-4, -1e-5, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
SEGMENTS = st.builds(
    PrivacyEvent,
    noise_multiplier=st.integers(60, 500).map(lambda hundredths: hundredths / 100),
    sampling_rate=st.integers(0, 1000).map(lambda part: round(0.001 * 500 ** (part / 1000), 4)),
    steps=st.integers(1, 1000).map(lambda part: max(1, round(3000 * (part / 1000) ** 2))),
)
DELTAS = st.sampled_from([1e-5, 1e-6])
HIGH_RATE = [PrivacyEvent(4.07, 0.0018, 117), PrivacyEvent(1.77, 0.1459, 2422)]


class FromTheLeastLoss(PrivacyRandomVariableTruncated):
    """The referee's law of one step's loss, with its mean integrated from the least loss on.

    The referee's first piece goes from far below the least loss, log(1 - q), up to -0.1. Where the
    least loss lies a little under -0.1, its quadrature meets nothing but zeros there: the mean is
    wrong, and with it every bound, or the referee gives up. At lower rates this changes nothing.
    """

    def mean(self):
        least = math.log1p(-float(self.prv.p))
        if least > BREAKS[0]:
            return super().mean()
        points = [max(least, self.t_min), *BREAKS, self.t_max]
        return self.t_max - sum(quad(self.cdf, *piece, limit=500)[0] for piece in pairwise(points))


def interval(history, delta, *, eps_error):
    """Return Microsoft's lower bound, estimate and upper bound on epsilon."""
    laws = [
        PoissonSubsampledGaussianMechanism(event.sampling_rate, event.noise_multiplier)
        for event in history
    ]
    steps = [event.steps for event in history]
    return PRVAccountant(laws, eps_error, delta / 1000, steps).compute_epsilon(delta, steps)


@pytest.fixture
def _mended(monkeypatch):
    monkeypatch.setattr(
        "prv_accountant.accountant.PrivacyRandomVariableTruncated", FromTheLeastLoss
    )


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("_mended")
@pytest.mark.parametrize("segments", [1, 2, 3, 4])
@pytest.mark.parametrize("part", [0, 1])
def test_pld_lies_in_the_referees_interval_and_below_rdp(segments, part):
    @seed(2 * segments + part)
    @settings(max_examples=IN_EACH, deadline=None, database=None, phases=[Phase.generate])
    @given(st.lists(SEGMENTS, min_size=segments, max_size=segments), DELTAS)
    def check(history, delta):
        rdp = epsilon_rdp(history, delta)
        assume(rdp <= 30 and history not in checked)
        pld = epsilon_pld(history, delta, interval=INTERVAL)
        assume(pld >= 0.05)
        eps_error = min(max(rdp / 20, 0.04), 0.2)
        lower, estimate, upper = interval(history, delta, eps_error=eps_error)
        assert lower <= pld <= upper
        assert abs(pld - estimate) <= WIDEST_GAP
        assert pld <= rdp
        checked.append(history)

    checked: list[list[PrivacyEvent]] = []
    check()
    assert len(checked) == IN_EACH


def test_the_referee_gives_up_at_high_rates_unless_mended(request):
    with pytest.raises(RuntimeError, match="Discrete mean differs from continuous mean"):
        interval(HIGH_RATE, 1e-5, eps_error=0.1)
    request.getfixturevalue("_mended")
    lower, _, upper = interval(HIGH_RATE, 1e-5, eps_error=0.1)
    assert lower <= epsilon_pld(HIGH_RATE, 1e-5) <= upper
