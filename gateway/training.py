"""A model's trained parameters as one flat vector, and the local steps that move it.

They are float32, in the order of their names, as in `common.weights`. Whatever follows the noise
is post-processing and costs no privacy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from common.hyperparameters import Hyperparameters, Optimizer
from gateway.dp_sgd import ClippedSum
from gateway.packing import UnitRows
from private_step import Batch
from tasks.parameters import trainable

ReadBatch: TypeAlias = Callable[[Sequence[int]], Batch]


class Gradients(Protocol):
    """What clips gradients, however it does."""

    def clipped_sum(
        self, parameters: Tensor, units: Sequence[UnitRows], expected: float, clipping_norm: float
    ) -> ClippedSum:
        """Return the sum over units of their gradients, each clipped once, and their count.

        Args:
            parameters: where the gradients are taken, shape (parameters,).
            units: the batch's units, of each the rows of its records, whose gradients are summed
                before they are clipped; there may be no unit.
            expected: how many units a batch has on average: public.
            clipping_norm: C: one unit moves the sum by at most C, the count by at most 1/2.
        """
        ...


def flat_parameters(model: nn.Module) -> Tensor:
    """Return a copy of the model's trainable parameters, shape (parameters,), float32."""
    return flat(trainable(model)).detach().clone()


def flat(named: Mapping[str, Tensor], first_dim: int = 0) -> Tensor:
    """Return tensors as one, in the order of their names, flat from `first_dim` on."""
    tensors = (named[name] for name in sorted(named))
    return torch.cat([t.reshape(*t.shape[:first_dim], -1) for t in tensors], dim=first_dim)


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


def _optimizer(parameter: nn.Parameter, how: Hyperparameters) -> torch.optim.Optimizer:
    if how.optimizer is Optimizer.SGD:
        return torch.optim.SGD([parameter], lr=how.learning_rate, momentum=how.momentum)
    decay = how.weight_decay
    return torch.optim.AdamW([parameter], lr=how.learning_rate, weight_decay=decay)
