"""What one unit can do to the float32 sum: 10,000 removals, from batches of up to 1,024."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from private_step import ClippedGradients, affine, clipped, grams
from tests.unit.private_step.test_clipped import cancelling, weighted_outputs

CLIPPING_NORM = 1.0
WIDTH = 64


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def aligned(units: int, seed: int) -> tuple[Tensor, Tensor]:
    """Units that all pull the same way, so that partial sums grow as far as they can."""
    x = torch.rand(1, 1, WIDTH, generator=generator(seed)) + 0.5
    lengths = torch.rand(units, 1, 1, generator=generator(seed + 1)) + 20.0
    return (x * lengths), torch.ones(units, 1, 4)


def ordinary(units: int, seed: int) -> tuple[Tensor, Tensor]:
    """Units of all sizes and directions."""
    sizes = 10.0 ** torch.randint(-4, 5, (units, 1, 1), generator=generator(seed)).float()
    x = torch.randn(units, 4, WIDTH, generator=generator(seed + 1)) * sizes
    return x, torch.randn(units, 4, 4, generator=generator(seed + 2))


def built(units: int, seed: int) -> tuple[Tensor, Tensor]:
    """Ordinary units with one among them that was built for cancellation."""
    x, above = cancelling(seed)
    others, other_above = ordinary(units - 1, seed)
    wide = nn.functional.pad(other_above, (0, 60)).repeat(1, 8, 1)
    return torch.cat([others.repeat(1, 8, 1), x]), torch.cat([wide, above])


def total(x: Tensor, above: Tensor) -> Tensor:
    gradients = ClippedGradients(
        nn.Linear(WIDTH, above.shape[2], bias=False), weighted_outputs, expected_units=len(x)
    )
    for start in range(0, len(x), 64):
        piece = slice(start, start + 64)
        gradients.add((x[piece], above[piece]), CLIPPING_NORM)
    return gradients.total.double()


def most_moved(x: Tensor, above: Tensor, removed: range) -> float:
    whole, largest = total(x, above), 0.0
    for unit in removed:
        others = torch.cat([x[:unit], x[unit + 1 :]]), torch.cat([above[:unit], above[unit + 1 :]])
        largest = max(largest, float((whole - total(*others)).norm()))
    return largest


@pytest.mark.parametrize("kind", [aligned, ordinary, built])
@pytest.mark.parametrize("seed", range(10))
def test_no_removal_from_a_small_batch_moves_the_sum_by_more_than_the_clipping_norm(kind, seed):
    for size in (2, 17, 60, 64, 65, 112):  # 320 removals
        assert most_moved(*kind(size, seed), range(size)) <= CLIPPING_NORM


@pytest.mark.parametrize("kind", [aligned, ordinary, built])
def test_no_removal_from_a_large_batch_moves_the_sum_by_more_than_the_clipping_norm(kind):
    x, above = kind(1024, 7)
    assert most_moved(x, above, range(0, 1024, 7)) <= CLIPPING_NORM  # 147 removals


def test_without_the_margin_for_the_float32_sum_one_would(monkeypatch):
    for module, name in (
        (clipped, "MARGIN"),
        (clipped, "NORM_ROUNDING"),
        (affine, "UNIT_ROUNDOFF"),
        (grams, "UNIT_ROUNDOFF"),
    ):
        monkeypatch.setattr(module, name, 0.0)
    x, above = aligned(1024, 7)
    assert most_moved(x, above, range(0, 1024, 7)) > CLIPPING_NORM
