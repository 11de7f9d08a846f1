"""Reference figures: what this project's accounting and its referees give for the same steps."""

from __future__ import annotations

from typing import NamedTuple

from common.accounting import PrivacyEvent

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


class Referees(NamedTuple):
    """What accountants that are not ours give for a case, to the last digit."""

    opacus_rdp: float
    opacus_prv: float  # an upper bound: the estimate, and 0.01 for its error
    microsoft: tuple[float, float, float]  # lower bound, estimate, upper bound
    eps_error: float = 0.05  # what Microsoft's was asked for: half the width of its interval


REFEREES = {
    "A": Referees(2.59656, 2.39174, (2.37146, 2.38160, 2.39174), 0.01),
    "B": Referees(0.95443, 0.87448, (0.85436, 0.86442, 0.87448), 0.01),
    "C": Referees(6.31810, 5.64977, (5.58911, 5.63946, 5.68981)),
    "D": Referees(7.32911, 6.77913, (6.71846, 6.76881, 6.81916)),
    "E": Referees(4.21519, 3.87494, (3.81459, 3.86479, 3.91498)),
    "F": Referees(16.00974, 14.41219, (14.35076, 14.40150, 14.45223)),
    "G": Referees(5.95866, 5.28453, (5.22394, 5.27425, 5.32456)),
    "H": Referees(5.22154, 4.89677, (4.83638, 4.88660, 4.93681)),
    "I": Referees(21.13672, 19.52584, (19.46423, 19.51504, 19.56585)),
    "J": Referees(1.37107, 0.27040, (0.21068, 0.26074, 0.31081)),
    "K": Referees(3.63967, 3.38122, (3.32094, 3.37111, 3.42127)),
    "L": Referees(25.81323, 24.42172, (24.36016, 24.41095, 24.46173)),
    "M": Referees(37.19752, 34.50808, (34.44530, 34.49669, 34.54808)),
}
