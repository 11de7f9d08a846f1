"""Convolutions: products of a weight with patches of their input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from private_step.affine import AffineSums, book_affine, raised_gram_norms
from private_step.rules import book_per_record, rule_for
from private_step.tape import Tape

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d


@rule_for(nn.Conv1d)
def conv1d(module: nn.Conv1d, tape: Tape, x: Tensor) -> Tensor:
    """Run a one-dimensional convolution, x of shape (records, channels, length)."""
    return _convolve(module, tape, x, functional.conv1d)


@rule_for(nn.Conv2d)
def conv2d(module: nn.Conv2d, tape: Tape, x: Tensor) -> Tensor:
    """Run a two-dimensional convolution, x of shape (records, channels, height, width)."""
    return _convolve(module, tape, x, functional.conv2d)


def _convolve(
    module: Convolution, tape: Tape, x: Tensor, function: Callable[..., Tensor]
) -> Tensor:
    tape.check_first_dimension(x)
    weight, bias = module.weight, module.bias
    by_rows = _is_by_rows(module)
    padded = x if by_rows else _padded(module, x)
    output = function(
        padded,
        weight.detach(),
        None if bias is None else bias.detach(),
        module.stride,
        module.padding if by_rows else 0,
        module.dilation,
        module.groups,
    )
    weight_sum, bias_sum = tape.sum_of(weight), tape.sum_of(bias)
    seen = padded.detach()

    def observe(gradient: Tensor) -> None:
        if weight_sum is None:
            _book(tape, seen, gradient, (None, bias_sum))
        elif by_rows and _gram_is_cheaper(tape, gradient, weight):
            squared = _norms_by_rows(module, seen, gradient, ones=0 if bias_sum is None else 1)
            rows = (seen, gradient)
            tape.book(squared, partial(_add_weighted, tape, module, rows, (weight_sum, bias_sum)))
        elif module.groups > 1:
            book_per_record(tape, _grouped(module, seen, gradient), weight_sum)
            _book(tape, seen, gradient, (None, bias_sum))
        else:
            patches = _patches(module, _padded(module, seen) if by_rows else seen, gradient)
            _book(tape, patches, gradient, (weight_sum.flatten(1), bias_sum))

    return tape.watch(output, x, observe)


def _book(
    tape: Tape, patches: Tensor, gradient: Tensor, sums: tuple[Tensor | None, Tensor | None]
) -> None:
    weight, bias = sums
    biases = () if bias is None else (bias,)
    positions = gradient.flatten(2).transpose(1, 2)
    book_affine(tape, patches, positions, AffineSums(weight, biases))


def _add_weighted(
    tape: Tape,
    module: Convolution,
    rows: tuple[Tensor, Tensor],
    sums: tuple[Tensor, Tensor | None],
    factors: Tensor,
) -> None:
    """Add the weight's gradient over all records, each weighted by its unit's factor."""
    x, gradient = rows
    weight, bias = sums
    weighted = gradient * tape.units.spread(factors).view(-1, *[1] * (gradient.dim() - 1))
    how = (module.stride, module.padding, module.dilation, False, [0], module.groups)
    only_weight = [False, True, False]
    back = torch.ops.aten.convolution_backward
    weight.add_(back(weighted, x, module.weight.detach(), None, *how, only_weight)[1])
    if bias is not None:
        bias.add_(weighted.sum(dim=(0, 2)))


def _is_by_rows(module: Convolution) -> bool:
    """Whether patches overlap so plainly that they need not be written out."""
    plain = (module.stride, module.dilation, module.groups) == ((1,), (1,), 1)
    return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _gram_is_cheaper(tape: Tape, gradient: Tensor, weight: Tensor) -> bool:
    out, into, _ = weight.shape
    each_its_own = tape.units.of_record is None
    return each_its_own and gradient.shape[2] * (into + out) <= weight.numel()


def _norms_by_rows(module: Convolution, x: Tensor, gradient: Tensor, *, ones: int) -> Tensor:
    """Return squared norms for a one-dimensional convolution of stride 1, without patches.

    Two patches' inner product is a sum along a diagonal of the Gram matrix of the input's rows.
    """
    size, padding, out = module.kernel_size[0], int(module.padding[0]), gradient.shape[2]
    between = functional.pad(torch.bmm(x.transpose(1, 2), x), [padding] * 4)
    of_patches = between[:, :out, :out].clone()
    for shift in range(1, size):
        of_patches += between[:, shift : shift + out, shift : shift + out]
    over_gradient = torch.bmm(gradient.transpose(1, 2), gradient)
    terms = x.shape[1] * size + gradient.shape[1]
    return raised_gram_norms(over_gradient, of_patches, ones=ones, terms=terms)


def _padded(module: Convolution, x: Tensor) -> Tensor:
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    around = module._reversed_padding_repeated_twice  # noqa: SLF001 (torch's own reading of it)
    return functional.pad(x, list(around), mode=mode) if any(around) else x


def _patches(module: Convolution, x: Tensor, gradient: Tensor) -> Tensor:
    """Return what each output position saw, shape (records, positions, channels x kernel)."""
    windows = x
    for axis, (size, step, apart, out) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, gradient.shape[2:], strict=True)
    ):
        reach = (size - 1) * apart + 1
        windows = windows.unfold(2 + axis, reach, step)[..., ::apart].narrow(2 + axis, 0, out)
    axes = len(module.kernel_size)
    positions = tuple(range(2, 2 + axes))
    kernel = tuple(range(2 + axes, 2 + 2 * axes))
    return windows.permute(0, *positions, 1, *kernel).flatten(1 + axes).flatten(1, axes)


def _grouped(module: Convolution, x: Tensor, gradient: Tensor) -> Tensor:
    """Return each record's whole weight gradient of a convolution in groups."""
    groups = module.groups
    patches = _patches(module, x, gradient)  # channels come first in what a position saw
    of_group = torch.unflatten(patches, 2, (groups, -1))  # records, positions, groups, inputs
    above = torch.unflatten(
        gradient.flatten(2), 1, (groups, -1)
    )  # records, groups, outputs, positions
    whole = torch.einsum("rgop,rpgi->rgoi", above, of_group)
    return whole.reshape(len(x), *module.weight.shape)
