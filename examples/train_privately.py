"""A private training loop on a plain torch module, outside of any federation."""

from __future__ import annotations

import torch
from torch import nn

from private_step import PrivacyOfStep, PrivateStep

x = torch.randn(1000, 12)
y = (x.sum(dim=1) > 0).long()
model = nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 2))


def loss(module: nn.Module, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """One value for each example: no mean over the batch."""
    return nn.functional.cross_entropy(module(batch[0]), batch[1], reduction="none")


made_up = (torch.randn(8, 12), torch.zeros(8, dtype=torch.long))  # to check the model, never data
privacy = PrivacyOfStep(clipping_norm=1.0, noise_multiplier=1.0, expected_batch_size=100)
private = PrivateStep(model, loss, made_up, privacy, lambda p: torch.optim.AdamW(p, lr=0.01))
for _ in range(100):
    chosen = torch.rand(1000) < 100 / 1000  # Poisson: each example on its own; it may be none
    private.step((x[chosen], y[chosen]))

right = (model(x).argmax(dim=1) == y).float().mean()
print(f"{right:.0%} right")
