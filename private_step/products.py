"""Products of float32 matrices, by oneDNN where torch has it on this processor.

`torch.mm` goes to a library that leaves half of some processors' vector units idle, and products
are nearly all of a step. oneDNN's product is what `torch.compile` emits for linear layers; where
this torch does not have it, `torch.mm` does the work.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

# torch offers them to its own compiler only, hence the underscores
_ONEDNN = torch.ops.mkldnn
_PRODUCT = "_linear_pointwise"


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a b^T + bias, of shapes (..., n), (m, n) and (m,); outside of any graph.

    The result is no view, so that what follows may change it in place.
    """
    rows = a.reshape(-1, a.shape[-1])
    if _has_onednn(a.device.type, a.dtype):
        flat: Tensor = getattr(_ONEDNN, _PRODUCT)(_plain(rows), _plain(b), bias, "none", [], "")
    else:
        flat = torch.nn.functional.linear(rows, b, bias)
    if a.dim() == 2:  # noqa: PLR2004 (a matrix already)
        return flat
    found: Tensor = torch.ops.aten._unsafe_view(flat, (*a.shape[:-1], flat.shape[1]))  # noqa: SLF001
    return found


def _plain(matrix: Tensor) -> Tensor:
    """Return the matrix in rows or in columns without gaps: for others oneDNN is very slow."""
    if matrix.is_contiguous() or matrix.t().is_contiguous():
        return matrix
    return matrix.contiguous()


@cache
def _has_onednn(device: str, dtype: torch.dtype) -> bool:
    """Whether the operation is there and right; asked once for each kind of tensor."""
    if device != "cpu" or dtype != torch.float32:
        return False
    a, b = (torch.arange(3.0 * n, device=device).view(n, 3) for n in (2, 4))
    try:
        found = getattr(_ONEDNN, _PRODUCT)(a, b, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(found, torch.mm(a, b.t()))
