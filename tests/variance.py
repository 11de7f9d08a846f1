"""A test of how wide noise is: sharper than one of its whole distribution."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2


def variance_pvalue(noise: np.ndarray, deviation: float) -> float:
    """Return how likely normal draws are as far from `deviation` as these, on either side."""
    law = chi2(len(noise))
    found = float((noise**2).sum()) / deviation**2
    return 2 * min(law.cdf(found), law.sf(found))
