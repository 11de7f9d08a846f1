"""What a site may choose of how it trains.

Settings are made of these, and a probe reads them every few seconds: no torch is loaded for it.
"""

from __future__ import annotations

from enum import StrEnum


class Device(StrEnum):
    """What `device` in `gateway.toml` may be."""

    AUTO = "auto"  # a GPU where torch finds one, else the processor
    CPU = "cpu"
    CUDA = "cuda"


class GradientsBy(StrEnum):
    """How gradients are clipped unit by unit."""

    ONE_BACKWARD = "one_backward"  # one backward pass for a batch, by a rule for each module
    FUNCTIONAL = "functional"  # torch.func: one for each example, slower, for any other model
