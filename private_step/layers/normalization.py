"""Layer, group and root-mean-square norms: few parameters, whole gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from private_step.rules import book_per_record, rule_for
from private_step.tape import Tape

#: Takes a norm's input, weight and bias; gives its output, and what gives it without the two.
Normalize: TypeAlias = Callable[
    [Tensor, Tensor | None, Tensor | None], tuple[Tensor, Callable[[], Tensor]]
]
Norm: TypeAlias = nn.LayerNorm | nn.RMSNorm | nn.GroupNorm


@rule_for(nn.LayerNorm)
def layer_norm(module: nn.LayerNorm, tape: Tape, x: Tensor) -> Tensor:
    """Run a layer norm over the last dimensions."""
    shape = module.normalized_shape

    def normalize(
        values: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        found, mean, scale = torch.native_layer_norm(values, shape, weight, bias, module.eps)
        seen, mean, scale = values.detach(), mean.detach(), scale.detach()
        return found, lambda: (seen - mean).mul_(scale)

    between = tuple(range(1, x.dim() - len(shape)))
    return _watched(module, tape, x, (normalize, between))


@rule_for(nn.RMSNorm)
def rms_norm(module: nn.RMSNorm, tape: Tape, x: Tensor) -> Tensor:
    """Run a root-mean-square norm over the last dimensions."""
    shape = module.normalized_shape

    def normalize(
        values: Tensor, weight: Tensor | None, _bias: Tensor | None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        seen = values.detach()
        again = partial(functional.rms_norm, seen, shape, None, module.eps)
        return functional.rms_norm(values, shape, weight, module.eps), again

    between = tuple(range(1, x.dim() - len(shape)))
    return _watched(module, tape, x, (normalize, between))


@rule_for(nn.GroupNorm)
def group_norm(module: nn.GroupNorm, tape: Tape, x: Tensor) -> Tensor:
    """Run a group norm; its parameters lie along dimension 1, the channels."""

    def normalize(
        values: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        groups, seen = module.num_groups, values.detach()
        again = partial(functional.group_norm, seen, groups, None, None, module.eps)
        return functional.group_norm(values, groups, weight, bias, module.eps), again

    return _watched(module, tape, x, (normalize, tuple(range(2, x.dim()))))


def _watched(module: Norm, tape: Tape, x: Tensor, how: tuple[Normalize, tuple[int, ...]]) -> Tensor:
    """Return the normalised x times weight plus bias, and book both.

    Args:
        module: of which the parameters are.
        tape: the micro-batch's.
        x: shape (records, ...).
        how: what normalises, and the dimensions that neither are records nor have parameters.
    """
    tape.check_first_dimension(x)
    normalize, between = how
    weight, bias = module.weight, getattr(module, "bias", None)
    detached = [None if each is None else each.detach() for each in (weight, bias)]
    weight_sum, bias_sum = tape.sum_of(weight), tape.sum_of(bias)
    output, plain = normalize(x, *detached)

    def over_tokens(values: Tensor) -> Tensor:
        return values.sum(dim=between) if between else values

    def observe(gradient: Tensor) -> None:
        if weight_sum is not None:
            # made again: cheaper than kept
            book_per_record(tape, over_tokens(plain().mul_(gradient)), weight_sum)
        if bias_sum is not None:
            book_per_record(tape, over_tokens(gradient), bias_sum)

    return tape.watch(output, x, observe)
