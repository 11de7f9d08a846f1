"""Gradients one by one, for models that one backward pass does not take: by `torch.func`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from common.errors import RequestError
from gateway.dp_sgd import ClippedSum, clipped_sum
from gateway.packing import UnitRows, packed
from gateway.training import ReadBatch, flat, flat_parameters
from private_step import Batch, Loss
from private_step.checks import check_records_alone, check_same, per_record_gradients
from private_step.clipped import refuse_batch_norms
from private_step.devices import full_precision
from private_step.errors import NotPerExample
from tasks.parameters import trainable


class NotVectorisable(RequestError):
    """A model does what `torch.func` cannot do for many examples at once."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"torch.func cannot take this model's gradients one by one ({error!s:.120}...): "
            "use layers that neither branch on the data nor change tensors in place"
        )


class FunctionalGradients:
    """Gradients by `torch.func`: one backward pass for each record, vectorised, summed by unit.

    The model is in evaluation mode (no dropout), its frozen parameters and buffers do not change.
    """

    def __init__(self, model: nn.Module, loss: Loss, batch: ReadBatch, micro_batch: int) -> None:
        """Read examples by `batch(rows)`, at most `micro_batch` at a time: that bounds memory."""
        self._whole = _LossOf(model.eval(), loss)
        self._trainable = trainable(model)
        self._batch = batch
        self._micro_batch = micro_batch

    def clipped_sum(
        self, parameters: Tensor, units: Sequence[UnitRows], expected: float, clipping_norm: float
    ) -> ClippedSum:
        """Return the exact sum of the units' clipped gradients, float64, and their count."""
        del expected  # only rounding would depend on it
        with full_precision(parameters.device):
            blocks = self.blocks(parameters, units)
            return clipped_sum(blocks, len(parameters), clipping_norm, parameters.device)

    def blocks(self, parameters: Tensor, units: Sequence[UnitRows]) -> Iterator[Tensor]:
        """Yield the gradients of `units` at `parameters`, shape (units, parameters), float64.

        A unit's is the sum of its records' gradients, in the order of its rows and one after the
        other, so that neither its company nor how it was cut changes a bit of the summing. Rows are
        read only when their turn comes, at most `micro_batch` at once; no units, no block.
        """
        for some in packed(units, self._micro_batch):
            block = parameters.new_zeros(len(some.units), len(parameters), dtype=torch.float64)
            of_unit = iter(some.of_unit)
            for rows in some.pieces():
                for gradient in self.of(parameters, self._batch(rows)).double():
                    block[next(of_unit)] += gradient  # a GPU's index_add_ keeps to no order
            yield block

    def of(self, parameters: Tensor, batch: Batch) -> Tensor:
        """Return the gradient of each example of `batch`, shape (examples, parameters)."""
        named = _named(parameters, self._trainable)
        per_example = vmap(grad(self._loss_of_one), in_dims=(None, 0))(named, batch)
        return flat(per_example, first_dim=1).detach()

    def _loss_of_one(self, named: dict[str, Tensor], example: Batch) -> Tensor:
        alone = tuple(tensor.unsqueeze(0) for tensor in example)
        inner = {f"model.{name}": tensor for name, tensor in named.items()}
        losses: Tensor = functional_call(self._whole, inner, alone)
        if losses.shape != (1,):
            raise NotPerExample(got=tuple(losses.shape), need=(1,))
        return losses[0]


def check_functional(model: nn.Module, loss: Loss, specimens: Batch) -> None:
    """Raise unless what one example adds to the gradient depends on that example alone.

    Args:
        model: as it will be trained.
        loss: the task's.
        specimens: a few synthetic examples of the task's input shape, never private rows.

    Raises:
        BatchNormForbidden: a module normalises over the batch.
        NotPerExample: the loss is not one value for each example.
        NotVectorisable: `torch.func` cannot do what the model does.
        UnitsInterfere: a gradient in a batch differs from the gradient alone.
    """
    refuse_batch_norms(model)
    gradients = FunctionalGradients(model, loss, lambda _: specimens, len(specimens[0]))
    with full_precision(specimens[0].device):
        try:
            vectorised = gradients.of(flat_parameters(model), specimens)
        except RuntimeError as error:
            raise NotVectorisable(error) from error
        check_records_alone(model, loss, specimens)
        plain = per_record_gradients(model, loss, specimens)
        for row, (one, alone) in enumerate(zip(vectorised, plain, strict=True)):
            check_same(row, one, alone)


def _named(flat_values: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pieces = torch.split(flat_values, [tensor.numel() for tensor in like.values()])
    return {n: piece.view(t.shape) for (n, t), piece in zip(like.items(), pieces, strict=True)}


class _LossOf(nn.Module):
    """A model and its loss as one module, so that `functional_call` can exchange parameters."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self._loss(self.model, batch)
