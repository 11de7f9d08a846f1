r"""Gaussian noise on a grid: the sum of clipped gradients leaves only as whole numbers.

Source:
    Box and Muller 1958, "A Note on the Generation of Random Normal Deviates". On the grid: Mironov
    2012, "On Significance of the Least Significant Bits for Differential Privacy".
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from common.randomness import SPARE, RandomStream
from private_step.compiling import Code, compiled

GRID = 2.0**-16  # over the noise's standard deviation
BLOCK = 1 << 16  # values made at a time, an even number: they stay in the cache
BLOCKS_AT_ONCE = 8  # that threads share
BYTES = 6  # of the key stream for a value: 12 for a pair
POSITIVE = 0x7FFFFFFF
WORTH_COMPILING = 1 << 18  # values from which on the compiled kernel is used


def noised_mean(
    total: Tensor,
    deviation: float,
    divisor: float,
    stream: RandomStream,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Add noise, round to the grid, divide by a constant.

    Args:
        total: the sum over clipped gradients, shape (n,), float32 or float64.
        deviation: omega > 0, the noise's standard deviation, in the units of the gradient.
        divisor: what the sum is divided by, a constant that no data sway.
        stream: the noise; no other sum may ever see this part of it.
        out: where the mean goes, shape (n,), float32; it may be `total` itself, which is then used
            up. Fresh memory costs as much as the noise: the system clears each page of it.

    Returns:
        Shape (n,), float32: a function of `noised_multiples` alone. Large sums are noised by
        a compiled kernel where llvmlite is installed, of which the last bits may differ.
    """
    mean = torch.empty_like(total, dtype=torch.float32) if out is None else out
    scales = (1 / (deviation * GRID), deviation * GRID / divisor)
    is_large = len(total) >= WORTH_COMPILING
    if is_large and _is_plain(total) and _is_plain(mean) and (code := _code()) is not None:
        _write_compiled(code, total, mean, scales, stream)
        return mean
    for start in range(0, len(total), BLOCK):
        piece = slice(start, start + BLOCK)
        mean[piece] = noised_multiples(total[piece], deviation, stream).mul_(scales[1])
    return mean


def noised_multiples(total: Tensor, deviation: float, stream: RandomStream) -> Tensor:
    r"""Add noise and round to the grid.

    .. math:: \Bigl\lfloor \frac{G + \mathcal N(0, \omega^2 I)}{\gamma} \Bigr\rceil,
       \quad \gamma = 2^{-16} \omega

    Args:
        total: the sum G over clipped gradients, shape (n,), float32 or float64.
        deviation: omega > 0, the noise's standard deviation, in the units of the gradient.
        stream: the noise; no other sum may ever see this part of it.

    Returns:
        Shape (n,): whole multiples of gamma, whatever the sum was, in float64, which holds them
        up to 2^53. Rounding is post-processing: it takes from the lowest bits what they would
        tell of the sum. Hardening, not a proof, since the noise is floating point.
    """
    values = total.to(torch.float64, copy=True).mul_(1 / (deviation * GRID))
    values += _gaussian_over_grid(len(values), stream).to(total.device)
    return values.round_()


def _gaussian_over_grid(count: int, stream: RandomStream) -> Tensor:
    """Return independent normal values of standard deviation 1 / GRID, shape (count,), float32.

    The radius of a pair comes from 62 bits, which reach 9.3 standard deviations, its angle from
    32. float32 holds a value to a 128th of a step of the grid where values are most dense.
    """
    pairs = -(-count // 2)
    words = torch.frombuffer(stream.read(2 * BYTES * pairs), dtype=torch.int32).view(3, pairs)
    words[:2].bitwise_and_(POSITIVE)
    high, low, turn = words.to(torch.float32).unbind(0)
    uniform = high.add_(low.add_(0.5), alpha=2.0**-31).mul_(2.0**-31)  # in (0, 1]
    radius = uniform.log_().mul_(-2 / GRID**2).sqrt_()
    angle = turn.mul_(math.pi * 2.0**-31)
    values = torch.empty(2, pairs, device=words.device)
    torch.mul(radius, torch.cos(angle, out=values[0]), out=values[0])
    torch.mul(radius, angle.sin_(), out=values[1])
    return values.view(-1)[:count]


def _is_plain(values: Tensor) -> bool:
    """Whether the kernel, which is given addresses only, can read and write them."""
    on_cpu = values.device.type == "cpu" and values.dtype == torch.float32
    return on_cpu and values.is_contiguous()


@cache
def _code() -> Code | None:
    """Compile the kernel, once in a process; None where llvmlite is not installed."""
    try:
        from private_step.kernels import noise_kernel  # noqa: PLC0415 (llvmlite may be missing)
    except ImportError:
        return None
    return compiled(noise_kernel())


def _write_compiled(
    code: Code,
    total: Tensor,
    mean: Tensor,
    scales: tuple[float, float],
    stream: RandomStream,
) -> None:
    """Write the noised mean, in as many threads as torch has.

    Which bytes of the stream a value gets depends on its place alone, not on the threads.
    """
    most = BLOCK * BLOCKS_AT_ONCE
    room = bytearray(min(len(total) + 1, most) * BYTES + SPARE)
    words = torch.frombuffer(room, dtype=torch.uint8)
    call = code.call(0, BLOCK, words, total, mean, *scales, -2 / GRID**2)
    for start in range(0, len(total), most):
        count = min(most, len(total) - start)
        stream.read_into(room, 2 * BYTES * -(-count // 2))
        places = (each.data_ptr() + start * each.element_size() for each in (total, mean))
        call.run(-(-count // BLOCK), count, BLOCK, words.data_ptr(), *places)
