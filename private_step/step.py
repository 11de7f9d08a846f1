"""One private step after another, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.errors import RequestError
from common.randomness import RandomStream, system_secret
from private_step.checks import check_records_alone, check_rules
from private_step.clipped import MOST_UNITS_AT_ONCE, Batch, ClippedGradients, Loss
from private_step.devices import device_of, moved
from private_step.noise import noised_mean


class NotPositive(RequestError):
    """A value must be above zero for the step to be private, or to be a step."""

    def __init__(self, name: str, value: float) -> None:
        super().__init__(f"{name} is {value}: it must be a finite number above 0")


@dataclass(frozen=True)
class PrivacyOfStep:
    """What a step promises: one Gaussian mechanism of sensitivity C and deviation sigma C."""

    clipping_norm: float  # C, L2, in gradient units
    noise_multiplier: float  # sigma: the noise's standard deviation over C
    expected_batch_size: float  # what the noised sum is divided by; never the batch's own size

    def __post_init__(self) -> None:
        for name in ("clipping_norm", "noise_multiplier", "expected_batch_size"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise NotPositive(name, value)


class PrivateStep:
    """DP-SGD on a plain module: clip each unit, sum, add noise, let an optimiser step.

    Batches have to be Poisson samples for the accounting of such steps to hold: each unit in a
    batch with the same probability, on its own; an empty batch is a step like any other.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        specimens: Batch,
        privacy: PrivacyOfStep,
        optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
        *,
        stream: RandomStream | None = None,
    ) -> None:
        """Check the model and make its optimiser.

        Args:
            model: a plain module; it stays one, and is changed by `step`, where it lies: move it
                to a GPU before, batches go there by themselves.
            loss: `loss(model, batch)` gives one value for each record, shape (records,).
            specimens: a few made-up records of the batches' shapes, never private ones.
            privacy: the promise.
            optimizer: makes the optimiser for one flat vector of all trained parameters.
            stream: the noise; None: under a fresh key from the system.

        Raises:
            RequestError: the model cannot be trained so; by name, with the way out.
        """
        specimens = moved(specimens, device_of(model))
        check_records_alone(model, loss, specimens)
        self._gradients = ClippedGradients(model, loss, expected_units=privacy.expected_batch_size)
        check_rules(self._gradients, loss, specimens)
        self._privacy = privacy
        self._stream = stream or RandomStream(system_secret())
        self._flat = nn.Parameter(self._gradients.parameters)
        self._gradients.use(self._flat.data)
        self._optimizer = optimizer([self._flat])

    def step(self, batch: Batch) -> None:
        """Take one private step on a Poisson batch of records, each a unit, or on none."""
        how = self._privacy
        self._gradients.clear()
        for start in range(0, len(batch[0]), MOST_UNITS_AT_ONCE):
            piece = tuple(t[start : start + MOST_UNITS_AT_ONCE] for t in batch)
            self._gradients.add(moved(piece, self._flat.device), how.clipping_norm)
        deviation = how.noise_multiplier * how.clipping_norm
        total = self._gradients.total
        self._flat.grad = noised_mean(
            total, deviation, how.expected_batch_size, self._stream, out=total
        )
        self._optimizer.step()
