"""What must hold of a model before it is trained privately, tried on made-up records."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from private_step.clipped import Batch, ClippedGradients, Loss
from private_step.devices import full_precision
from private_step.errors import NormIncomplete, NotPerExample, UnitsInterfere

ALONE_TOLERANCE = 1e-5  # relative, between a record's gradient in a batch and alone
SUM_TOLERANCE = 1e-4  # relative, between the sum of gradients by the rules and by autograd
SLACK = 0.02  # relative: by so much may a norm be above the true one


def check_records_alone(model: nn.Module, loss: Loss, specimens: Batch) -> None:
    """Raise unless a record's gradient is the same in a batch as alone.

    Args:
        model: as it will be trained.
        loss: the task's.
        specimens: a few made-up records of the task's input shape, never private ones.

    Raises:
        NotPerExample: the loss is not one value for each record.
        UnitsInterfere: a gradient in a batch differs from the gradient alone.
    """
    with full_precision(specimens[0].device):
        for row, together in enumerate(per_record_gradients(model, loss, specimens)):
            only = tuple(t[row : row + 1] for t in specimens)
            alone = next(per_record_gradients(model, loss, only))
            check_same(row, together, alone)


def check_same(row: int, found: Tensor, alone: Tensor) -> None:
    """Raise UnitsInterfere unless record `row` has in `found` the gradient that it has alone."""
    error = float((found - alone).norm() / alone.norm().clamp(min=1e-12))
    if not error <= ALONE_TOLERANCE:
        raise UnitsInterfere(row, error=error, most=ALONE_TOLERANCE)


def check_rules(gradients: ClippedGradients, loss: Loss, specimens: Batch) -> None:
    """Raise unless the rules' sums and norms are those that autograd finds.

    They are tried on all specimens, and on all but the last, so that a module whose first
    dimension is not the records is found whatever the shapes are.

    Raises:
        NormIncomplete: they differ.
        RequestError: what only a forward pass can show; see `private_step.errors`.
    """
    for count in {len(specimens[0]), max(1, len(specimens[0]) - 1)}:
        batch = tuple(t[:count] for t in specimens)
        expected, true = torch.zeros_like(gradients.total), []
        with full_precision(specimens[0].device):
            for gradient in per_record_gradients(gradients.model, loss, batch):
                expected += gradient
                true.append(float(gradient.norm()))
        gradients.clear()
        norms = gradients.add(batch, float("inf")).tolist()
        found = gradients.total
        longest = max(true, default=0.0) or 1e-12
        error = float((found - expected).norm()) / (longest * count**0.5)
        over = [(norm - right) / longest for norm, right in zip(norms, true, strict=True)]
        if not (error <= SUM_TOLERANCE and min(over) >= -SUM_TOLERANCE and max(over) <= SLACK):
            worst = max(error, -min(over), *over)
            off = gradients.names_where(found, expected, most=SUM_TOLERANCE * longest)
            raise NormIncomplete(error=worst, parameters=off)
        gradients.clear()


def per_record_gradients(model: nn.Module, loss: Loss, batch: Batch) -> Iterator[Tensor]:
    """Yield the gradient of each record's loss, shape (parameters,), by autograd.

    Raises:
        NotPerExample: the loss is not one value for each record.
    """
    losses = loss(model, batch)
    if losses.shape != (len(batch[0]),):
        raise NotPerExample(got=tuple(losses.shape), need=(len(batch[0]),))
    trained = [p for _, p in sorted(model.named_parameters()) if p.requires_grad]
    for one in losses:
        found = torch.autograd.grad(one, trained, retain_graph=True, materialize_grads=True)
        yield torch.cat([gradient.reshape(-1) for gradient in found])
