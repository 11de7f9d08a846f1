r"""Gaussian noise on a grid: the sum of clipped gradients leaves only as whole numbers.

Source:
    Box and Muller 1958, "A Note on the Generation of Random Normal Deviates". On the grid: Mironov
    2012, "On Significance of the Least Significant Bits for Differential Privacy".
"""

from __future__ import annotations

import math
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from common.randomness import SPARE, RandomStream
from private_step.compiling import Code, compiled
from private_step.keystream import ZEROS_AT_ONCE, KeyStreams, OpenSsl, openssl

GRID = 2.0**-16  # over the noise's standard deviation
BLOCK = 1 << 15  # values made at a time, an even number: they stay in the cache
BLOCKS_AT_ONCE = 16  # that threads share
PARTS_FOR_A_THREAD = 2  # so that a thread that is held up leaves work to the others
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
    words = torch.frombuffer(stream.read(_stream_bytes(count)), dtype=torch.int32).view(3, pairs)
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
        from private_step.noise_kernel import Noise  # noqa: PLC0415 (llvmlite may be missing)
    except ImportError:
        return None
    return compiled(Noise())


def _write_compiled(
    code: Code,
    total: Tensor,
    mean: Tensor,
    scales: tuple[float, float],
    stream: RandomStream,
) -> None:
    """Write the noised mean, in as many threads as torch has.

    Which bytes of the stream a value gets depends on its place alone, not on the threads, nor on
    who makes them.
    """
    values = (total, mean, *scales, -2 / GRID**2)
    library = openssl()
    if library is None:
        _write_from_bytes(code, values, stream)
    else:
        _write_from_key(code, values, stream, library)


_Values: TypeAlias = tuple[Tensor, Tensor, float, float, float]  # the kernel's, from the total on


def _write_from_key(code: Code, values: _Values, stream: RandomStream, library: OpenSsl) -> None:
    """Let each part make its words for itself, a block's at a time."""
    count = len(values[0])
    blocks = -(-count // BLOCK)
    share = -(-blocks // (PARTS_FOR_A_THREAD * torch.get_num_threads()))
    parts = -(-blocks // share)
    length = _stream_bytes(count)
    begin = stream.skip(length)
    starts = [begin + share * part * BLOCK * BYTES for part in range(parts)]
    words = torch.empty(parts * BLOCK * BYTES, dtype=torch.uint8)
    with KeyStreams(library, stream.key, starts) as streams:
        maker = (streams.update, streams.table, _zeros())
        code.call(count, BLOCK, share, *values, words, *maker).run(parts)
        made = streams.made()
    if made != length:
        why = f"OpenSSL made {made:,} of {length:,} bytes of noise; nothing was released"
        raise RuntimeError(why)


def _write_from_bytes(code: Code, values: _Values, stream: RandomStream) -> None:
    """Make the words of some blocks beforehand."""
    total, mean, *scales = values
    most = BLOCK * BLOCKS_AT_ONCE
    room = bytearray(_stream_bytes(min(len(total), most)) + SPARE)
    words = torch.frombuffer(room, dtype=torch.uint8)
    for start in range(0, len(total), most):
        before, after = total[start : start + most], mean[start : start + most]
        stream.read_into(room, _stream_bytes(len(before)))
        call = code.call(len(before), BLOCK, 1, before, after, *scales, words, 0, 0, 0)
        call.run(-(-len(before) // BLOCK))


def _stream_bytes(count: int) -> int:
    """Return how many bytes of the key stream so many values take."""
    return 2 * BYTES * -(-count // 2)


@cache
def _zeros() -> Tensor:
    """Return what a kernel encrypts, so that the key stream itself comes out."""
    return torch.zeros(ZEROS_AT_ONCE, dtype=torch.uint8)
