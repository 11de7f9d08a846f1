"""What one example can do to the sum: many batches, each example of each taken out."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dp_sgd import clip_gradients
from tests.unit.gateway.toys import values


@given(
    seed=st.integers(0, 2**31),
    parameters=st.sampled_from([1, 2, 17, 300]),
    clipping_norm=st.floats(1e-6, 1e6),
    spread=st.sampled_from([0, 4, 30]),
    aligned=st.booleans(),
)
@settings(max_examples=400, deadline=None, derandomize=True)  # 10,000 removals
def test_removing_any_example_moves_the_sum_by_at_most_the_clipping_norm(
    seed, parameters, clipping_norm, spread, aligned
):
    directions = values(1 if aligned else 25, parameters, seed=seed).expand(25, -1)
    rows = directions * 10.0 ** (spread * (torch.arange(25)[:, None] / 24 - 0.3))
    total = clip_gradients(rows, clipping_norm).sum(dim=0)
    for left_out in range(25):
        others = torch.cat([rows[:left_out], rows[left_out + 1 :]])
        moved = total - clip_gradients(others, clipping_norm).sum(dim=0)
        assert math.hypot(*moved.tolist()) <= clipping_norm
