"""The rules that come with the package; importing it registers them."""

from __future__ import annotations

from private_step.layers import (
    attention,
    convolution,
    embedding,
    linear,
    normalization,
    recurrent,
)

__all__ = ["attention", "convolution", "embedding", "linear", "normalization", "recurrent"]
