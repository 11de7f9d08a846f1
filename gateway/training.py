"""From a batch to per-example gradients to a local step, for any module that torch.func allows.

A model's trainable parameters are one flat float32 vector, in the order of their names, as in
`common.weights`. Whatever follows the noise is post-processing and costs no privacy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from common.errors import RequestError
from common.hyperparameters import Hyperparameters, Optimizer
from common.weights import Layout
from gateway.sampling import Rows

Batch: TypeAlias = tuple[Tensor, ...]  # each of shape (examples, ...)
ReadBatch: TypeAlias = Callable[[Sequence[int]], Batch]
Loss: TypeAlias = Callable[[nn.Module, Batch], Tensor]  # shape (examples,): one loss for each

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
TOLERANCE = 1e-5  # relative, between an example's gradient in a batch and alone


class BatchNormForbidden(RequestError):
    """A model normalises over the batch, so that one example changes another's gradient."""

    def __init__(self, module: str) -> None:
        super().__init__(
            f"module {module!r} normalises over the batch, which mixes examples: "
            "build the model with LayerNorm or GroupNorm instead"
        )


class ExamplesInterfere(RequestError):
    """An example's gradient in a batch is not the one that it has alone."""

    def __init__(self, example: int, *, error: float) -> None:
        super().__init__(
            f"synthetic example {example} has another gradient in a batch than alone "
            f"(relative error {error:.1e}, at most {TOLERANCE:.0e} is allowed): clipping one "
            "example would not bound what it does; remove what looks across the batch"
        )


class NotPerExample(RequestError):
    """A loss does not give one value for each example."""

    def __init__(self, *, got: tuple[int, ...], need: tuple[int, ...]) -> None:
        super().__init__(
            f"the task's loss has shape {got} for a batch of shape {need}: return one value for "
            "each example, without a mean over the batch"
        )


class NotVectorisable(RequestError):
    """A model does what `torch.func` cannot do for many examples at once."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            f"torch.func cannot take this model's gradients one by one ({error!s:.120}...): "
            "use layers that neither branch on the data nor change tensors in place"
        )


class PerExampleGradients(Protocol):
    """Turns rows into blocks of per-example gradients: the one thing that a faster way replaces."""

    def __call__(self, parameters: Tensor, rows: Rows) -> Iterator[Tensor]:
        """Yield the gradients of `rows` at `parameters` in blocks, shape (examples, parameters).

        Row i is the gradient of example i's own loss, whatever else is in its block.
        """
        ...


def layout_of(model: nn.Module) -> Layout:
    """Return the names and shapes of the model's trainable parameters."""
    return Layout.of({name: tuple(p.shape) for name, p in _trainable(model).items()})


def flat_parameters(model: nn.Module) -> Tensor:
    """Return a copy of the model's trainable parameters, shape (parameters,), float32."""
    return _flat(_trainable(model)).detach().clone()


class FunctionalGradients:
    """Per-example gradients by `torch.func`: one backward pass for each example, vectorised.

    The model is in evaluation mode (no dropout), its frozen parameters and buffers do not change.
    """

    def __init__(self, model: nn.Module, loss: Loss, batch: ReadBatch, micro_batch: int) -> None:
        """Read examples by `batch(rows)`, at most `micro_batch` at a time: that bounds memory."""
        self._whole = _LossOf(model.eval(), loss)
        self._trainable = _trainable(model)
        self._batch = batch
        self._micro_batch = micro_batch

    def __call__(self, parameters: Tensor, rows: Rows) -> Iterator[Tensor]:
        """Yield the gradients of `rows` at `parameters`, shape (at most micro_batch, parameters).

        Rows are read only when their block is asked for; without rows there is no block.
        """
        for start in range(0, len(rows), self._micro_batch):
            block = rows[start : start + self._micro_batch].tolist()
            yield self.of(parameters, self._batch(block))

    def of(self, parameters: Tensor, batch: Batch) -> Tensor:
        """Return the gradient of each example of `batch`, shape (examples, parameters)."""
        named = _named(parameters, self._trainable)
        per_example = vmap(grad(self._loss_of_one), in_dims=(None, 0))(named, batch)
        return _flat(per_example, first_dim=1).detach()

    def _loss_of_one(self, named: dict[str, Tensor], example: Batch) -> Tensor:
        alone = tuple(tensor.unsqueeze(0) for tensor in example)
        inner = {f"model.{name}": tensor for name, tensor in named.items()}
        losses: Tensor = functional_call(self._whole, inner, alone)
        if losses.shape != (1,):
            raise NotPerExample(got=tuple(losses.shape), need=(1,))
        return losses[0]


class LocalSteps:
    """The gateway's own optimiser over the flat vector; its state lives for one round."""

    def __init__(self, start: Tensor, how: Hyperparameters) -> None:
        """Begin at `start`, shape (parameters,), float32; it is left as it is."""
        self._start = start
        self._moving = nn.Parameter(start.clone())
        self._optimizer = _optimizer(self._moving, how)
        self._warm_up = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda done: min(1.0, (done + 1) / max(1, how.warmup_steps))
        )

    @property
    def parameters(self) -> Tensor:
        """Where the steps have come to, shape (parameters,), float32."""
        return self._moving.detach()

    @property
    def difference(self) -> Tensor:
        """What the steps have changed, shape (parameters,), float32."""
        return self.parameters - self._start

    def step(self, gradient: Tensor) -> None:
        """Take one step down the noised mean `gradient`, shape (parameters,)."""
        self._moving.grad = gradient.to(self._moving.dtype)
        self._optimizer.step()
        self._warm_up.step()


def check_model(model: nn.Module, loss: Loss, specimens: Batch) -> None:
    """Raise unless what one example adds to the gradient depends on that example alone.

    Args:
        model: as it will be trained.
        loss: the task's.
        specimens: a few synthetic examples of the task's input shape, never private rows.

    Raises:
        BatchNormForbidden: a module normalises over the batch.
        NotPerExample: the loss is not one value for each example.
        NotVectorisable: `torch.func` cannot do what the model does.
        ExamplesInterfere: a gradient in a batch differs from the gradient alone.
    """
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORMS):
            raise BatchNormForbidden(name)
    gradients = FunctionalGradients(model, loss, lambda _: specimens, len(specimens[0]))
    try:
        vectorised = gradients.of(flat_parameters(model), specimens)
    except RuntimeError as error:
        raise NotVectorisable(error) from error
    together = _loss_gradients(model, loss, specimens)
    for row in range(len(specimens[0])):
        alone = _loss_gradients(model, loss, tuple(t[row : row + 1] for t in specimens))[0]
        _check_equal(row, alone, vectorised[row])
        _check_equal(row, alone, together[row])


def _check_equal(row: int, alone: Tensor, in_batch: Tensor) -> None:
    error = float((in_batch - alone).norm() / alone.norm().clamp(min=1e-12))
    if not error <= TOLERANCE:
        raise ExamplesInterfere(row, error=error)


def _loss_gradients(model: nn.Module, loss: Loss, batch: Batch) -> list[Tensor]:
    """Return the gradient of each example's loss, all losses from one forward pass."""
    losses = loss(model.eval(), batch)
    if losses.shape != (len(batch[0]),):
        raise NotPerExample(got=tuple(losses.shape), need=(len(batch[0]),))
    named = _trainable(model)
    found = (
        torch.autograd.grad(one, named, retain_graph=True, materialize_grads=True) for one in losses
    )
    return [_flat(gradient) for gradient in found]


def _optimizer(parameter: nn.Parameter, how: Hyperparameters) -> torch.optim.Optimizer:
    if how.optimizer is Optimizer.SGD:
        return torch.optim.SGD([parameter], lr=how.learning_rate, momentum=how.momentum)
    decay = how.weight_decay
    return torch.optim.AdamW([parameter], lr=how.learning_rate, weight_decay=decay)


def _trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


def _flat(named: dict[str, Tensor], first_dim: int = 0) -> Tensor:
    tensors = (named[name] for name in sorted(named))
    return torch.cat([t.reshape(*t.shape[:first_dim], -1) for t in tensors], dim=first_dim)


def _named(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    pieces = torch.split(flat, [tensor.numel() for tensor in like.values()])
    return {n: piece.view(t.shape) for (n, t), piece in zip(like.items(), pieces, strict=True)}


class _LossOf(nn.Module):
    """A model and its loss as one module, so that `functional_call` can exchange parameters."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self._loss(self.model, batch)
