r"""Gaussian noise on a grid: the sum of clipped gradients leaves only as whole numbers.

Source:
    Box and Muller 1958, "A Note on the Generation of Random Normal Deviates". On the grid: Mironov
    2012, "On Significance of the Least Significant Bits for Differential Privacy".
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from common.randomness import SPARE, RandomStream
from private_step.compiling import Loop
from private_step.kernels import compiled

GRID = 2.0**-16  # over the noise's standard deviation
BLOCK = 1 << 16  # values made at a time, an even number: they stay in the cache
AT_ONCE = 1 << 13  # pairs that the compiled loops take at a time
BYTES = 6  # of the key stream for a value: 12 for a pair
POSITIVE = 0x7FFFFFFF
WORTH_COMPILING = 1 << 18  # values from which on the compiled loops are used


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
        compiled loops where Numba is installed, of which the last bits may differ.
    """
    mean = torch.empty_like(total, dtype=torch.float32) if out is None else out
    scales = (1 / (deviation * GRID), deviation * GRID / divisor)
    is_large = len(total) >= WORTH_COMPILING and total.dtype == torch.float32
    if is_large and total.device.type == "cpu" and (block := compiled()) is not None:
        _write_compiled(block, total, mean, scales, stream)
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


def _write_compiled(
    block: Loop,
    total: Tensor,
    mean: Tensor,
    scales: tuple[float, float],
    stream: RandomStream,
) -> None:
    """Write the noised mean, in as many threads as torch has.

    Which bytes of the stream a value gets depends on its place alone, not on the threads.
    """
    threads = torch.get_num_threads()
    blocks = -(-len(total) // BLOCK)
    each = -(-blocks // threads) * BLOCK
    arrays = total.detach().numpy(), mean.numpy()
    jobs = [
        partial(_write_part, block, arrays, range(start, min(start + each, len(total))), scales)
        for start in range(0, len(total), each)
    ]
    parts = [stream.reserve(-(-each // BLOCK) * BLOCK * BYTES) for _ in jobs]
    if len(jobs) == 1:
        jobs[0](parts[0])
        return
    with ThreadPoolExecutor(len(jobs)) as pool:
        for done in [pool.submit(job, part) for job, part in zip(jobs, parts, strict=True)]:
            done.result()


def _write_part(
    block: Loop,
    arrays: tuple[np.ndarray[tuple[int], np.dtype[np.float32]], ...],
    places: range,
    scales: tuple[float, float],
    stream: RandomStream,
) -> None:
    total, mean = arrays
    room = bytearray(BLOCK * BYTES + SPARE)
    radius, cosine, sine = np.empty((3, AT_ONCE), np.float32)
    rooms = radius, cosine, sine, np.empty(AT_ONCE, np.int32)
    for start in range(places.start, places.stop, BLOCK):
        here = slice(start, min(start + BLOCK, places.stop))
        pairs = -(-(here.stop - start) // 2)
        words = np.frombuffer(stream.read_into(room, 2 * BYTES * pairs), np.int32)
        factors = (*scales, np.float32(-2 / GRID**2))
        block(words.reshape(3, pairs), total[here], mean[here], rooms, factors)
