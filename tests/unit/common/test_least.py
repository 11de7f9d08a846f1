"""The search that coarse buckets begin and fine ones decide."""

from __future__ import annotations

import pytest

from common.accounting import COARSE_INTERVAL, PLD_INTERVAL
from common.calibration import _least


@pytest.mark.parametrize("coarse", [1, 2, 37, 99, 100, 101, 117, 250, 999, 1000])
@pytest.mark.parametrize("fine", [1, 2, 60, 100, 700, 1000])
def test_fine_buckets_decide_wherever_the_coarse_ones_began(coarse, fine):
    from_here_on = {COARSE_INTERVAL: coarse, PLD_INTERVAL: fine}

    def holds(n: int, interval: float) -> bool:
        return n >= from_here_on[interval]

    assert _least(holds, 0, 1000) == fine


def test_what_holds_nowhere_below_the_top_is_the_top():
    assert _least(lambda n, interval: False, 0, 50) == 50
