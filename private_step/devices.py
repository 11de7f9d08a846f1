"""Where the numbers lie, and products there in float32 proper, as the bounds on rounding need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from private_step.errors import ReducedPrecision

FULL = ("none", "ieee")  # what torch calls float32 that is not shortened for products


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's parameters lie; it has one at least."""
    return next(model.parameters()).device


def moved(batch: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Return the batch on `device`; tensors that lie there already are not copied."""
    return tuple(each.to(device) for each in batch)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Let torch compute in float32 proper on `device`, until the block ends.

    Units are clipped to what the rounding of float32 can add (`private_step.clipped.MARGIN`).
    cuDNN is left out meanwhile: it shortens factors to ten bits (TF32) as it comes, transforms what
    it convolves, and takes recurrent layers back in training mode only. torch's own kernels stay.

    Raises:
        ReducedPrecision: the process lets torch shorten the factors of other products.
    """
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    found = backend.matmul.fp32_precision
    if found not in FULL:
        raise ReducedPrecision(device.type, found)
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
