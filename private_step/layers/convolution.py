"""Convolutions: products of a weight with patches of their input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from private_step.affine import (
    KEPT_VALUES,
    Sums,
    book_affine,
    weighted_product,
)
from private_step.grams import gram_squared_norms
from private_step.products import product
from private_step.rules import book_per_record, rule_for
from private_step.tape import Tape, Workspace

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
    sums = tape.sum_of(module.weight), tape.sum_of(module.bias)
    weight, bias = (
        None if each is None else each.detach() for each in (module.weight, module.bias)
    )
    if _is_by_rows(module):
        padding = int(module.padding[0])
        given = ((weight, bias), padding, tape.workspace)
        output: Tensor = _ByRows.apply(x, *given)  # type: ignore[no-untyped-call]
        seen = x.detach().transpose(1, 2)
        return tape.watch(output, x, partial(_observe_rows, module, tape, seen, sums))
    padded = _padded(module, x)
    how = (module.stride, 0, module.dilation, module.groups)
    output = function(padded, weight, bias, *how)
    return tape.watch(output, x, partial(_observe, module, tape, padded.detach(), sums))


def _observe(module: Convolution, tape: Tape, padded: Tensor, sums: Sums, gradient: Tensor) -> None:
    weight, bias = sums
    if weight is None:
        _book(tape, padded, gradient, sums)
    elif module.groups > 1:
        book_per_record(tape, _grouped(module, padded, gradient), weight)
        _book(tape, padded, gradient, (None, bias))
    else:
        _book(tape, _patches(module, padded, gradient), gradient, (weight.flatten(1), bias))


def _observe_rows(
    module: Convolution, tape: Tape, rows: Tensor, sums: Sums, gradient: Tensor
) -> None:
    weight, _ = sums
    if weight is None or not _gram_is_cheaper(tape, gradient, weight):
        _observe(module, tape, _padded(module, rows.transpose(1, 2)), sums, gradient)
        return
    above = gradient.transpose(1, 2)
    ones, padding = 0 if sums[1] is None else 1, int(module.padding[0])
    size = module.kernel_size[0]
    squared = gram_squared_norms(rows, above, ones=ones, size=size, padding=padding)
    tape.book(squared, partial(_add_weighted, tape, module, (rows, above), (weight, sums[1])))


class _ByRows(Function):
    """A plain convolution over one dimension: a product of the weight with rows side by side.

    The products of oneDNN keep more of the processor busy than its convolutions do.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        parameters: tuple[Tensor, Tensor | None],
        padding: int,
        workspace: Workspace,
    ) -> Tensor:
        """Return the output, of shape (records, out, positions); x: (records, channels, length)."""
        weight, bias = parameters
        ctx.kept = (weight, padding, workspace)
        windows = _Windows(x.transpose(1, 2), weight.shape[2], padding, workspace)
        found = windows.times(weight.transpose(1, 2).flatten(1), bias)
        return found.transpose_(1, 2)  # no view, so that what follows may change it in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, padding, workspace = ctx.kept
        out, into, size = weight.shape
        windows = _Windows(gradients[0].transpose(1, 2), size, size - 1 - padding, workspace)
        turned = weight.new_empty(size, out, into)
        for place in range(size):  # one by one: torch is slow at turning three dimensions
            turned[place] = weight[:, :, size - 1 - place]
        found = windows.times(turned.flatten(0, 1).t())
        return found.transpose_(1, 2), None, None, None


@dataclass(frozen=True)
class _Windows:
    """Each `size` rows in a row side by side, written out for some records at a time."""

    rows: Tensor  # shape (records, length, width)
    size: int
    padding: int  # rows of zeros on either side; below 0: rows that are left out
    workspace: Workspace

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Give records, and what they have, shape (records, positions, size x width)."""
        records, length, width = self.rows.shape
        around = length + 2 * self.padding
        positions = around - self.size + 1
        at_once = max(1, KEPT_VALUES // (positions * self.size * width))
        for start in range(0, records, at_once):
            here = slice(start, start + at_once)
            rows = self.rows[here]
            shapes = (len(rows), around, width), (len(rows), positions, self.size, width)
            padded, room = self.workspace.rooms(shapes, rows)
            if self.padding > 0:
                padded[:, : self.padding] = padded[:, -self.padding :] = 0.0
            _within(padded, self.padding).copy_(_within(rows, -self.padding))
            room.copy_(padded.unfold(1, self.size, 1).transpose(2, 3))
            yield here, room.flatten(2)

    def times(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the products with a weight, (out, size x width), plus a bias, (out,)."""
        found = [product(windows, weight, bias) for _, windows in self]
        return found[0] if len(found) == 1 else torch.cat(found)


def _within(rows: Tensor, count: int) -> Tensor:
    """Return the rows but for so many on either side."""
    return rows[:, count:-count] if count > 0 else rows


def _book(tape: Tape, patches: Tensor, gradient: Tensor, sums: Sums) -> None:
    book_affine(tape, patches, gradient.flatten(2).transpose(1, 2), sums)


def _add_weighted(
    tape: Tape,
    module: Convolution,
    rows: tuple[Tensor, Tensor],
    sums: tuple[Tensor, Tensor | None],
    factors: Tensor,
) -> None:
    """Add the weight's gradient over all records, each weighted by its unit's factor."""
    x, above = rows
    weight, bias = sums
    _, into, size = weight.shape
    of_record = tape.units.spread(factors)
    for here, windows in _Windows(x, size, int(module.padding[0]), tape.workspace):
        found = weighted_product(above[here], windows, of_record[here, None, None])
        weight.add_(torch.unflatten(found, 1, (size, into)).transpose(1, 2))
    if bias is not None:
        of_position = of_record[:, None].expand(-1, above.shape[1]).flatten()
        bias.add_(of_position @ above.flatten(0, 1))


def _is_by_rows(module: Convolution) -> bool:
    """Whether each position sees rows that lie side by side, or zeros."""
    plain = (module.stride, module.dilation, module.groups) == ((1,), (1,), 1)
    return plain and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _gram_is_cheaper(tape: Tape, gradient: Tensor, weight: Tensor) -> bool:
    out, into, _ = weight.shape
    each_its_own = tape.units.of_record is None
    return each_its_own and gradient.shape[2] * (into + out) <= weight.numel()


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
    # records, groups, outputs, positions
    above = torch.unflatten(gradient.flatten(2), 1, (groups, -1))
    whole = torch.einsum("rgop,rpgi->rgoi", above, of_group)
    return whole.reshape(len(x), *module.weight.shape)
