"""Embeddings: a unit's gradient touches the rows of its own ids, and is held as these rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from private_step.grams import UNIT_ROUNDOFF
from private_step.rules import rule_for
from private_step.tape import Tape


def _why_not(module: nn.Embedding) -> str | None:
    if module.max_norm is not None:
        return "max_norm changes the weights in the forward pass"
    if module.scale_grad_by_freq:
        return "scale_grad_by_freq counts ids over the whole batch"
    return None


@rule_for(nn.Embedding, why_not=_why_not)
def embedding(module: nn.Embedding, tape: Tape, ids: Tensor) -> Tensor:
    """Look rows up; memory does not depend on how many rows there are."""
    tape.check_first_dimension(ids)
    output = functional.embedding(ids, module.weight.detach())
    where = tape.sum_of_trained(module.weight), module.padding_idx
    return tape.watch(output, ids, lambda g: _book(tape, ids, g, where))


def _book(tape: Tape, ids: Tensor, gradient: Tensor, where: tuple[Tensor, int | None]) -> None:
    """Sum the rows of equal ids within each unit, then book these sums."""
    total, padding = where
    rows, width = total.shape
    owners = tape.units.unit_of_each(ids.device)
    keys = (owners.view(-1, *[1] * (ids.dim() - 1)) * rows + ids).flatten()
    found, group = torch.unique(keys, return_inverse=True)
    owner, row = found.div(rows, rounding_mode="floor"), found.remainder(rows)
    summed = gradient.new_zeros(len(found), width).index_add_(0, group, gradient.flatten(0, -2))
    if padding is not None:
        summed[row == padding] = 0.0
    of_group = summed.square().sum(dim=1)
    most = width + len(found) + 8
    squared = gradient.new_zeros(tape.units.count).index_add_(0, owner, of_group)

    def add(factors: Tensor) -> None:
        total.index_add_(0, row, summed * factors[owner, None])

    tape.book(squared.mul_(1 + most * UNIT_ROUNDOFF), add)
