"""What attacks come to under each rule, as docs/explanation/bad-updates.md has it.

    python -m tests.poison.table

Prints the rows of its table: accuracy on the test set, the mean of SEEDS.
"""

from __future__ import annotations

import statistics
import sys

from common.bad_updates import PLAIN, Reputation, UpdateNorm
from tests.poison.learning import ATTACKS, learned

ROUNDS, SEEDS = 40, range(3)
RULES: tuple[tuple[UpdateNorm, Reputation | None], ...] = (
    (PLAIN, None),
    (UpdateNorm(), None),
    (UpdateNorm(), Reputation()),
    (UpdateNorm(factor=1.0), Reputation()),
)


def main() -> None:
    """Play every attack under every rule."""
    for attack in ("none", *ATTACKS):
        row = [attack]
        for how, reputation in RULES:
            played = [
                learned(ATTACKS.get(attack), how, rounds=ROUNDS, seed=seed, reputation=reputation)
                for seed in SEEDS
            ]
            honest = sum(each.of_honest for each in played)
            mean = f"{statistics.mean(each.accuracy for each in played):.3f}".lstrip("0")
            row.append(mean if not honest else f"{mean} ({honest} honest rounds set aside)")
        sys.stdout.write("| " + " | ".join(row) + " |\n")


if __name__ == "__main__":
    main()
