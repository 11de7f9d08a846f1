r"""Squared norms of the gradients of products, by Gram matrices: all inner products of rows.

Source:
    Li et al. 2022, "Large Language Models Can Be Strong Differentially Private Learners", section
    4. Rounding of inner products: Higham 2002, "Accuracy and Stability of Numerical Algorithms",
    section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from private_step.compiling import Code, compiled, has_wide_registers

if TYPE_CHECKING:
    from private_step.gram_kernel import Block

UNIT_ROUNDOFF = 2.0**-24  # of float32
WORTH_COMPILING = 1 << 16  # values of one side from which on the kernels are used


def gram_squared_norms(
    x: Tensor, gradient: Tensor, *, ones: int, size: int = 1, padding: int = 0
) -> Tensor:
    r"""Return the squared norm of each unit's gradient of a product, and at least that.

    .. math:: \sum_{t,s} \langle g_t, g_s \rangle (\langle x_t, x_s \rangle + n)
       + \gamma \Bigl(\sum_t \lVert g_t \rVert \sqrt{\lVert x_t \rVert^2 + n}\Bigr)^2

    Args:
        x: what the weight multiplied, shape (units, rows, in).
        gradient: g, of what came out, shape (units, positions, out).
        ones: n, how many biases there are.
        size: how many rows in a row a position saw side by side, as one.
        padding: how many rows of zeros are on either side of a unit's rows.

    Returns:
        Shape (units,). gamma is the rounding bound of the inner products and of the two sums over
        tokens. Large ones come from kernels where llvmlite is installed: libraries are not made
        for products so small, and would make each inner product twice.
    """
    units, length, width = x.shape
    positions = length + 2 * padding - size + 1
    terms = width * size + gradient.shape[2]
    raised_by = (terms + 2 * positions + 32) * UNIT_ROUNDOFF
    codes = _codes() if _is_worth_it(x, gradient) else None
    if codes is None:
        return _by_torch(x, gradient, (ones, size, padding), raised_by)
    side = length + 2 * padding
    below = x.new_zeros(units, side, side) if padding else x.new_empty(units, side, side)
    above = x.new_empty(units, positions, positions)
    norms = x.new_empty(units)
    for rows, products, offset in ((x, below, padding), (gradient, above, 0)):
        plain = rows if rows.stride(2) == 1 else rows.contiguous()
        sizes = (*plain.shape[1:], products.shape[1], offset)
        codes.gram.call(plain, *plain.stride()[:2], products, *sizes).run(units)
    sizes_of_norms = (positions, side, size, float(ones), raised_by)
    codes.norms.call(above, below, norms, *sizes_of_norms).run(units)
    return norms


def _by_torch(x: Tensor, gradient: Tensor, how: tuple[int, int, int], raised_by: float) -> Tensor:
    ones, size, padding = how
    positions = gradient.shape[1]
    over_gradient = torch.bmm(gradient, gradient.transpose(1, 2))
    between = torch.bmm(x, x.transpose(1, 2))
    if padding:
        between = functional.pad(between, [padding] * 4)
    # two windows' inner product is a sum along a diagonal of the Gram matrix of rows
    over_x = between[:, :positions, :positions].clone() if size > 1 else between
    for shift in range(1, size):
        end = shift + positions
        over_x += between[:, shift:end, shift:end]
    if ones:
        over_x.add_(ones)
    lengths = over_gradient.diagonal(dim1=1, dim2=2) * over_x.diagonal(dim1=1, dim2=2)
    spread = lengths.clamp_(min=0.0).sqrt_().sum(dim=1)
    squared = over_gradient.mul_(over_x).sum(dim=2).sum(dim=1)
    return squared.clamp_(min=0.0).addcmul_(spread, spread, value=raised_by)


@dataclass(frozen=True)
class _Codes:
    gram: Code
    norms: Code


def _is_worth_it(x: Tensor, gradient: Tensor) -> bool:
    on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    large = max(x.numel(), gradient.numel()) >= WORTH_COMPILING
    return on_cpu and large and len(x) >= torch.get_num_threads()


@cache
def _codes() -> _Codes | None:
    """Return the kernels for this processor; None where llvmlite is not installed."""
    try:
        from private_step import gram_kernel as kernels  # noqa: PLC0415 (may be missing)
    except ImportError:
        return None
    return _compiled(kernels.WIDE if has_wide_registers() else kernels.NARROW)


@cache
def _compiled(block: Block) -> _Codes:
    from private_step import gram_kernel as kernels  # noqa: PLC0415 (needs llvmlite)

    return _Codes(compiled(kernels.Gram(block)), compiled(kernels.Norms()))
