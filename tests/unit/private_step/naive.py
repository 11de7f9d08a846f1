"""The referee: one backward pass for each record, in float64, norms from whole gradients."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter values that no symmetry hides behind."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator(seed)) * 0.4)
            seed += 1
    return model


def squared_loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """A loss that weighs every output of a record differently."""
    found = model(batch[0])
    found = found[0] if isinstance(found, tuple) else found
    flat = found.flatten(1)
    ramp = torch.linspace(0.5, 1.5, flat.shape[1], dtype=flat.dtype, device=flat.device)
    return ((flat - 0.3) * ramp).square().mean(dim=1)


def doubled(model: nn.Module, batch: tuple[Tensor, ...]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the same model and batch in float64."""
    return copy.deepcopy(model).double(), tuple(_double(t) for t in batch)


def gradients(model: nn.Module, loss, batch: tuple[Tensor, ...]) -> Tensor:
    """Return each record's gradient, shape (records, parameters), by name."""
    exact = copy.deepcopy(model)
    trained = [p for _, p in sorted(exact.named_parameters()) if p.requires_grad]
    rows = []
    for row in range(len(batch[0])):
        one = tuple(t[row : row + 1] for t in batch)
        found = torch.autograd.grad(loss(exact, one).sum(), trained, materialize_grads=True)
        rows.append(torch.cat([each.reshape(-1) for each in found]))
    return torch.stack(rows) if rows else torch.zeros(0, sum(p.numel() for p in trained))


def clipped_sum(rows: Tensor, norms: Tensor, bound: float) -> Tensor:
    """Return the sum of `rows`, each scaled down as its norm says."""
    factors = (bound / norms.double()).clamp(max=1.0)
    return (rows.double() * factors[:, None]).sum(dim=0)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
