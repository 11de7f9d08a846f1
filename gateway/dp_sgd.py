r"""The private step of DP-SGD: clip each unit's gradient, sum, add noise; perhaps count as well.

Neighbouring data sets differ by one unit, added or removed: an example, or all that one document
or one person has. The gradients of a unit's records are summed first and the sum is clipped once.
Two ways lead to the sum of clipped gradients: one backward pass for a whole batch
(`private_step`), and, for models that it does not take, one gradient for each record, summed by
unit and clipped here. The sums of the second are exact: clipped rows lie on a grid of
:math:`2^{-28}` of the clipping norm's power of two and are added in float64, which holds such sums
without rounding for batches of up to :math:`2^{24}` units. So the sum depends neither on the order
of the units nor on how a batch was cut into blocks, and one unit moves it by what it was clipped
to, without any margin for rounding in the sum.

Where the clipping norm adapts (`common.adaptive_clipping`), a step also releases how many units lay
within it. Count and sum are one Gaussian mechanism of the plan's noise multiplier together, so a
step costs what it costs where the norm is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from common.adaptive_clipping import sum_noise_multiplier
from common.randomness import RandomStream
from private_step.noise import noised_mean

ROW_GRID = 2.0**-28  # over the power of two at or below the clipping norm
BAND = 0.25  # of the clipping norm: units so near to it count in part
VALUES_IN_CACHE = 2**17  # float64, 1 MiB: rows are clipped where they still lie close


@dataclass(frozen=True)
class ClippedSum:
    """What the units of one batch add up to at a clipping norm C; an empty batch gives zeros."""

    #: Of clipped gradients, shape (parameters,); one unit moves it by at most C. Noise uses it up.
    total: Tensor
    count: float  # of +1/2 for each unit within C, -1/2 outside; one moves it by at most 1/2


@dataclass(frozen=True)
class Released:
    """What one step makes public."""

    mean: Tensor  # of clipped gradients, noised, shape (parameters,), float32
    noisy_fraction: float | None  # of units within the clipping norm; None: not counted


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
    return _clipped(per_unit, clipping_norm)[0]


def count_within(norms: Tensor, clipping_norm: float) -> float:
    r"""Return how many units lie within the clipping norm: the sum of what each adds, b.

    .. math:: b_i = \Bigl[\frac{C - \lVert g_i \rVert_2}{C / 4}\Bigr]_{-1/2}^{+1/2}

    Where the norm is not within an eighth of C of C itself, that is the paper's bit: +1/2 within,
    -1/2 outside.

    Args:
        norms: of the units' gradients, shape (units,), in gradient units; a gradient that is not
            finite has a norm that is not, and lies outside.
        clipping_norm: C > 0, in the units of the gradient.

    Returns:
        In units of privacy. What a unit adds is a function of its own gradient alone, of at most
        1/2 either way: adding or removing one unit moves the count by at most 1/2, whichever norm
        is taken. A computed norm also depends on the company that a unit has in its micro-batch,
        by rounding and by what it is raised by against rounding; a bit would turn round with it,
        and units that are alike would all do so at once. On a slope the count moves by no more
        than four times the relative change for each unit that is near C.

    Source:
        Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping", section 2.
    """
    slope = (clipping_norm - norms) / (BAND * clipping_norm)
    return float(slope.nan_to_num(nan=-0.5).clamp(-0.5, 0.5).sum())


def clipped_sum(
    blocks: Iterable[Tensor],
    parameters: int,
    clipping_norm: float,
    device: torch.device | None = None,
) -> ClippedSum:
    """Return the exact sum over gradients, one for each unit, each clipped, and their count.

    Args:
        blocks: the batch's gradients, each block of shape (units, parameters); an empty batch has
            none.
        parameters: how many values a gradient has.
        clipping_norm: C, the L2 bound on what one unit adds.
        device: where the blocks lie; None: torch's own choice, the processor.

    Returns:
        The sum, float64, of L2 sensitivity C, and the count, of sensitivity 1/2.
    """
    total, count = torch.zeros(parameters, dtype=torch.float64, device=device), 0.0
    for per_unit in blocks:
        for rows in torch.split(per_unit, max(1, VALUES_IN_CACHE // parameters)):
            clipped, norms = _clipped(rows, clipping_norm)
            total += clipped.sum(dim=0)
            count += count_within(norms, clipping_norm)
    return ClippedSum(total, count)


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
        total: the sum G over clipped gradients, shape (parameters,), of L2 sensitivity C; one of
            float32 gives its place to the result.
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
    place = total if total.dtype == torch.float32 else None
    return noised_mean(total, noise_multiplier * clipping_norm, divisor, generator, out=place)


def apply_dp(
    clip: Callable[[float], ClippedSum],
    *,
    noise_multiplier: float,
    clipping_norm: float,
    divisor: float,
    generator: RandomStream,
    count_noise: float | None = None,
) -> Released:
    r"""Return the noised mean of clipped gradients over one Poisson batch, and who lay within C.

    .. math::
        \tilde G &= (G + \mathcal N(0, \sigma_d^2 C^2 I)) / E, \quad
        \sigma_d = (\sigma^{-2} - (2 s_b)^{-2})^{-1/2} \\
        \tilde b &= \bigl(\textstyle\sum_i b_i + \mathcal N(0, s_b^2)\bigr) / E + \tfrac12

    Args:
        clip: gives the batch's sum of gradients clipped to a norm, and its count; of an empty batch
            zeros, which are noised like any other.
        noise_multiplier: sigma, of all that is released: what the accountant is told.
        clipping_norm: C, the L2 bound on what one unit adds to the sum.
        divisor: E, the expected batch size: a constant that no data sway. What is stepped by is a
            mean of gradients clipped to C, so a step's length follows C where C adapts.
        generator: the noise, of the sum and then of the count; no other step may ever see this part
            of its stream.
        count_noise: s_b, the standard deviation of the count's noise, in units; None: the count is
            not released, and sigma_d is sigma.

    Returns:
        One Gaussian mechanism of noise multiplier sigma. Adding or removing one unit moves the sum
        by at most C and the count by at most 1/2, hence the pair (G / (sigma_d C), sum of b / s_b)
        by at most 1 / sigma. Both leave on grids of their own, 2^-16 of their noise.

    Raises:
        TooLittleCountNoise: sigma is at least 2 s_b.

    Source:
        Abadi et al. 2016, Algorithm 1; Andrew et al. 2021, Theorem 1.
    """
    of_sum = noise_multiplier
    if count_noise is not None:
        of_sum = sum_noise_multiplier(noise_multiplier, count_noise=count_noise)
    batch = clip(clipping_norm)
    mean = add_noise(
        batch.total,
        noise_multiplier=of_sum,
        clipping_norm=clipping_norm,
        divisor=divisor,
        generator=generator,
    )
    if count_noise is None:
        return Released(mean, None)
    count = torch.tensor([batch.count], dtype=torch.float64)
    above_half = noised_mean(count, count_noise, divisor, generator)
    return Released(mean, float(above_half) + 0.5)


def _clipped(per_unit: Tensor, clipping_norm: float) -> tuple[Tensor, Tensor]:
    """Return the clipped rows, and the rows' norms as they were, shape (batch,), float64."""
    parameters = per_unit.shape[1]
    grid = ROW_GRID * 2.0 ** math.floor(math.log2(clipping_norm))
    # a row of p values: p grid/2-wide roundings, and float64's own in the norm and the product
    rounding = math.sqrt(parameters) * grid / 2 + clipping_norm * (parameters + 8) * 2.0**-52
    rows = per_unit.to(torch.float64, copy=True)  # changed in place: passes over memory cost
    norms = torch.linalg.vector_norm(rows, dim=1)
    rows[~norms.isfinite()] = 0.0
    scales = ((clipping_norm - rounding) / norms).nan_to_num(0.0).clamp(max=1.0)
    rows.mul_(scales[:, None] / grid).round_().mul_(grid)  # over a power of two: exact
    return rows, norms
