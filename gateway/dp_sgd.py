r"""The private step of DP-SGD: clip each example's gradient, sum, add noise.

Neighbouring data sets differ by one example, added or removed. Sums are exact: clipped rows lie on
a grid of :math:`2^{-28}` of the clipping norm's power of two and are added in float64, which holds
such sums without rounding for batches of up to :math:`2^{24}` examples. So the sum depends neither
on the order of the examples nor on how a batch was cut into blocks, and one example moves it by
what it was clipped to, without any margin for rounding in the sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from common.randomness import RandomStream

ROW_GRID = 2.0**-28  # over the power of two at or below the clipping norm
NOISE_GRID = 2.0**-16  # over the noise's standard deviation
VALUES_IN_CACHE = 2**17  # float64, 1 MiB: rows are clipped where they still lie close


def clip_gradients(per_example: Tensor, clipping_norm: float) -> Tensor:
    r"""Scale every row down to L2 norm at most `clipping_norm`.

    .. math:: \bar g_i = g_i \cdot \min(1,\; C' / \lVert g_i \rVert_2)

    rounded to the grid; C' is C less what rounding can add to a row's norm.

    Args:
        per_example: gradients g, shape (batch, parameters); row i is example i's.
        clipping_norm: C > 0, in the units of the gradient.

    Returns:
        Shape (batch, parameters), float64; a row that is not finite becomes zero. Adding or
        removing one example moves the sum over rows by at most C: its L2 sensitivity.

    Source:
        Abadi et al. 2016, "Deep Learning with Differential Privacy", Algorithm 1.
    """
    parameters = per_example.shape[1]
    grid = ROW_GRID * 2.0 ** math.floor(math.log2(clipping_norm))
    # a row of p values: p grid/2-wide roundings, and float64's own in the norm and the product
    rounding = math.sqrt(parameters) * grid / 2 + clipping_norm * (parameters + 8) * 2.0**-52
    rows = per_example.to(torch.float64, copy=True)  # changed in place: passes over memory cost
    norms = torch.linalg.vector_norm(rows, dim=1)
    rows[~norms.isfinite()] = 0.0
    scales = ((clipping_norm - rounding) / norms).nan_to_num(0.0).clamp(max=1.0)
    return rows.mul_(scales[:, None] / grid).round_().mul_(grid)  # over a power of two: exact


def add_noise(
    total: Tensor, *, noise_multiplier: float, clipping_norm: float, generator: RandomStream
) -> Tensor:
    r"""Add Gaussian noise of standard deviation `noise_multiplier` times `clipping_norm`.

    .. math:: \mathrm{round}_{\gamma}\bigl(G + \mathcal N(0, \sigma^2 C^2 I)\bigr)

    Args:
        total: the sum G over clipped rows, shape (parameters,); of L2 sensitivity C.
        noise_multiplier: sigma > 0, what the accountant is told.
        clipping_norm: C > 0, in the units of the gradient.
        generator: the noise; no other step may ever see this part of its stream.

    Returns:
        Shape (parameters,), float64, on the grid gamma = sigma C 2^-16, whatever `total` is.
        Rounding is post-processing. It takes from the lowest bits what they would tell of
        `total`: hardening, not a proof, since the noise itself is floating point.

    Source:
        Abadi et al. 2016, Algorithm 1; on the grid: Mironov 2012, "On Significance of the Least
        Significant Bits for Differential Privacy".
    """
    deviation = noise_multiplier * clipping_norm
    noise = torch.from_numpy(generator.gaussian(total.numel())) * deviation
    grid = deviation * NOISE_GRID
    return torch.round((total.double() + noise) / grid) * grid


def apply_dp(
    blocks: Iterable[Tensor],
    parameters: int,
    *,
    noise_multiplier: float,
    clipping_norm: float,
    generator: RandomStream,
) -> Tensor:
    """Return the noised sum of clipped gradients over one Poisson batch.

    Args:
        blocks: the batch's per-example gradients, each block of shape (examples, parameters);
            an empty batch has none, and is noised like any other.
        parameters: how many values a gradient has.
        noise_multiplier: sigma, the noise's standard deviation over the clipping norm.
        clipping_norm: C, the L2 bound on what one example adds.
        generator: the noise.

    Returns:
        Shape (parameters,), float64: one Gaussian mechanism of L2 sensitivity C and standard
        deviation sigma C. Divide it by a constant that does not depend on the data.
    """
    total = torch.zeros(parameters, dtype=torch.float64)
    for per_example in blocks:
        for rows in torch.split(per_example, max(1, VALUES_IN_CACHE // parameters)):
            total += clip_gradients(rows, clipping_norm).sum(dim=0)
    return add_noise(
        total, noise_multiplier=noise_multiplier, clipping_norm=clipping_norm, generator=generator
    )
