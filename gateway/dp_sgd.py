r"""The private step of DP-SGD: clip each unit's gradient, sum, add noise.

Neighbouring data sets differ by one unit, added or removed: an example, or all that one document
or one person has. The gradients of a unit's records are summed first and the sum is clipped once.
Two ways lead to the sum of clipped gradients: one backward pass for a whole batch
(`private_step`), and, for models that it does not take, one gradient for each record, summed by
unit and clipped here. The sums of the second are exact: clipped rows lie on a grid of
:math:`2^{-28}` of the clipping norm's power of two and are added in float64, which holds such sums
without rounding for batches of up to :math:`2^{24}` units. So the sum depends neither on the order
of the units nor on how a batch was cut into blocks, and one unit moves it by what it was clipped
to, without any margin for rounding in the sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from common.randomness import RandomStream
from private_step.noise import noised_mean

ROW_GRID = 2.0**-28  # over the power of two at or below the clipping norm
VALUES_IN_CACHE = 2**17  # float64, 1 MiB: rows are clipped where they still lie close


def clip_gradients(per_unit: Tensor, clipping_norm: float) -> Tensor:
    r"""Scale every row down to L2 norm at most `clipping_norm`.

    .. math:: \bar g_i = g_i \cdot \min(1,\; C' / \lVert g_i \rVert_2)

    rounded to the grid; C' is C less what rounding can add to a row's norm.

    Args:
        per_unit: gradients g, shape (batch, parameters); row i is the sum over unit i's records.
        clipping_norm: C > 0, in the units of the gradient.

    Returns:
        Shape (batch, parameters), float64; a row that is not finite becomes zero. Adding or
        removing one unit moves the sum over rows by at most C: its L2 sensitivity.

    Source:
        Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1.
    """
    parameters = per_unit.shape[1]
    grid = ROW_GRID * 2.0 ** math.floor(math.log2(clipping_norm))
    # a row of p values: p grid/2-wide roundings, and float64's own in the norm and the product
    rounding = math.sqrt(parameters) * grid / 2 + clipping_norm * (parameters + 8) * 2.0**-52
    rows = per_unit.to(torch.float64, copy=True)  # changed in place: passes over memory cost
    norms = torch.linalg.vector_norm(rows, dim=1)
    rows[~norms.isfinite()] = 0.0
    scales = ((clipping_norm - rounding) / norms).nan_to_num(0.0).clamp(max=1.0)
    return rows.mul_(scales[:, None] / grid).round_().mul_(grid)  # over a power of two: exact


def clipped_sum(
    blocks: Iterable[Tensor],
    parameters: int,
    clipping_norm: float,
    device: torch.device | None = None,
) -> Tensor:
    """Return the exact sum over gradients, one for each unit, each clipped.

    Args:
        blocks: the batch's gradients, each block of shape (units, parameters); an empty batch has
            none.
        parameters: how many values a gradient has.
        clipping_norm: C, the L2 bound on what one unit adds.
        device: where the blocks lie; None: torch's own choice, the processor.

    Returns:
        Shape (parameters,), float64; of L2 sensitivity C.
    """
    total = torch.zeros(parameters, dtype=torch.float64, device=device)
    for per_unit in blocks:
        for rows in torch.split(per_unit, max(1, VALUES_IN_CACHE // parameters)):
            total += clip_gradients(rows, clipping_norm).sum(dim=0)
    return total


def add_noise(
    total: Tensor,
    *,
    noise_multiplier: float,
    clipping_norm: float,
    divisor: float,
    generator: RandomStream,
) -> Tensor:
    r"""Add Gaussian noise of standard deviation `noise_multiplier` times `clipping_norm`.

    .. math:: \mathrm{round}_{\gamma}\bigl(G + \mathcal N(0, \sigma^2 C^2 I)\bigr) / E

    Args:
        total: the sum G over clipped gradients, shape (parameters,); of L2 sensitivity C.
        noise_multiplier: sigma > 0, what the accountant is told.
        clipping_norm: C > 0, in the units of the gradient.
        divisor: E, the expected batch size: a constant that no data sway.
        generator: the noise; no other step may ever see this part of its stream.

    Returns:
        Shape (parameters,), float32. The noised sum is whole multiples of gamma = sigma C 2^-16,
        whatever `total` is; what follows is post-processing. The grid takes from the lowest bits
        what they would tell of `total`: hardening, not a proof.

    Source:
        Abadi et al. 2016, Algorithm 1; the noise and its grid: `private_step.noise`.
    """
    return noised_mean(total, noise_multiplier * clipping_norm, divisor, generator)


def apply_dp(
    clip: Callable[[float], Tensor],
    *,
    noise_multiplier: float,
    clipping_norm: float,
    divisor: float,
    generator: RandomStream,
) -> Tensor:
    """Return the noised mean of clipped gradients over one Poisson batch.

    Args:
        clip: gives the batch's sum of gradients clipped to a norm, shape (parameters,); of an
            empty batch zeros, which are noised like any other.
        noise_multiplier: sigma, the noise's standard deviation over the clipping norm.
        clipping_norm: C, the L2 bound on what one unit adds to the sum.
        divisor: the expected batch size: a constant that no data sway.
        generator: the noise.

    Returns:
        Shape (parameters,), float32: of the sum, one Gaussian mechanism of L2 sensitivity C and
        standard deviation sigma C.
    """
    return add_noise(
        clip(clipping_norm),
        noise_multiplier=noise_multiplier,
        clipping_norm=clipping_norm,
        divisor=divisor,
        generator=generator,
    )
