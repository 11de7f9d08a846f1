"""One training step without privacy, by Fedgate, and by `torch.func`; `peers` has the libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from benchmarks.private_step.models import Batch, loss, sentences
from private_step import ClippedGradients, PrivacyOfStep, PrivateStep

NOISE_MULTIPLIER = 1.0
RATE = 0.05
RECORDS_AT_ONCE = 16  # whose whole gradients `torch.func` holds


@dataclass(frozen=True)
class Setting:
    """What every method is given."""

    records: int
    clipping_norm: float = 1.0


@dataclass(frozen=True)
class ClippedSum:
    """A sum of clipped gradients before noise, flat, in the order of the parameters' names."""

    total: Tensor
    norms: Tensor | None = None  # by which the method clipped, if it tells
    margin: float = 0.0  # of the clipping norm: by so much did it clip to less


class Method(Protocol):
    """A way to train; each has its own copy of the model."""

    note: str | None  # what to know when reading its figures

    def step(self, batch: Batch) -> None:
        """Take one step: gradients, clipping, noise, update."""

    def clipped_sum(self, batch: Batch) -> ClippedSum | None:
        """Return what a step would add noise to; None: nothing is clipped. No step follows."""


class NonPrivate:
    """A plain step of torch."""

    note: str | None = None

    def __init__(self, model: nn.Module, _setting: Setting) -> None:
        self._model = model
        self._optimizer = torch.optim.SGD(trained(model).values(), lr=RATE)

    def step(self, batch: Batch) -> None:
        """Take one step on the mean gradient."""
        self._optimizer.zero_grad()
        loss(self._model, batch).mean().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def clipped_sum(self, _batch: Batch) -> ClippedSum | None:
        """Nothing is clipped."""
        return None


class Fedgate:
    """`private_step` as it ships."""

    note: str | None = None

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        self._model = model
        self._setting = setting
        privacy = PrivacyOfStep(setting.clipping_norm, NOISE_MULTIPLIER, setting.records)
        specimens = sentences(3, seed=2)
        self._step = PrivateStep(model, loss, specimens, privacy, partial(torch.optim.SGD, lr=RATE))

    def step(self, batch: Batch) -> None:
        """Take one private step; it cuts the batch into micro-batches itself."""
        self._step.step(batch)

    def clipped_sum(self, batch: Batch) -> ClippedSum | None:
        """Return the sum, and the norms and margin that it was clipped by."""
        how = self._setting
        gradients = ClippedGradients(self._model, loss, expected_units=how.records)
        norms = gradients.add(batch, how.clipping_norm)
        return ClippedSum(gradients.total, norms, gradients.margin)


class Functional:
    """Each record's whole gradient by `torch.func`, in micro-batches."""

    note: str | None = None

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        if any(isinstance(module, nn.LSTM) for module in model.modules()):
            self.note = "torch.func has no batching rule for nn.LSTM: it takes sentences one by one"
        self._model = model
        self._setting = setting
        self._parameters = trained(model)
        self._noise = torch.Generator().manual_seed(0)
        self._optimizer = torch.optim.SGD(self._parameters.values(), lr=RATE)
        self._of_each = vmap(grad(self._loss_of_one), in_dims=(None, 0), randomness="error")

    def step(self, batch: Batch) -> None:
        """Take one private step."""
        deviation = NOISE_MULTIPLIER * self._setting.clipping_norm
        for name, total in self._clipped(batch).items():
            noise = torch.normal(0.0, deviation, total.shape, generator=self._noise)
            self._parameters[name].grad = (total + noise).div_(self._setting.records)
        self._optimizer.step()

    def clipped_sum(self, batch: Batch) -> ClippedSum | None:
        """Return the sum."""
        return ClippedSum(flat(list(self._clipped(batch).values())))

    def _clipped(self, batch: Batch) -> dict[str, Tensor]:
        detached = {name: p.detach() for name, p in self._parameters.items()}
        totals = {name: torch.zeros_like(p) for name, p in detached.items()}
        for piece in pieces(batch, RECORDS_AT_ONCE):
            rows = self._of_each(detached, piece)
            of_parameter = [row.flatten(1).norm(dim=1) for row in rows.values()]
            norms = torch.stack(of_parameter).norm(dim=0)
            factors = (self._setting.clipping_norm / norms).clamp(max=1.0)
            for name, row in rows.items():
                totals[name] += torch.tensordot(factors, row, dims=1)
        return totals

    def _loss_of_one(self, parameters: dict[str, Tensor], one: Batch) -> Tensor:
        run = partial(functional_call, self._model, parameters)
        return loss(run, tuple(x[None] for x in one))[0]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters in the order of their names."""
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """Return one vector of all values."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def pieces(batch: Batch, size: int) -> list[Batch]:
    """Cut a batch into micro-batches of at most `size` records."""
    return list(zip(*(torch.split(x, size) for x in batch), strict=True))


def _opacus_hooks(model: nn.Module, setting: Setting) -> Method:
    from benchmarks.private_step.peers import OpacusHooks  # noqa: PLC0415 - memory counts

    return OpacusHooks(model, setting)


def _opacus_ghost(model: nn.Module, setting: Setting) -> Method:
    from benchmarks.private_step.peers import OpacusGhost  # noqa: PLC0415 - memory counts

    return OpacusGhost(model, setting)


METHODS: dict[str, Callable[[nn.Module, Setting], Method]] = {
    "non_private": NonPrivate,
    "fedgate": Fedgate,
    "functional": Functional,
    "opacus_hooks": _opacus_hooks,
    "opacus_ghost": _opacus_ghost,
}
