"""The same step by Opacus, in its two modes, as its documentation has it."""

from __future__ import annotations

import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.layers import DPLSTM
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from benchmarks.private_step.methods import (
    NOISE_MULTIPLIER,
    RATE,
    ClippedSum,
    Setting,
    flat,
    pieces,
    trained,
)
from benchmarks.private_step.models import Batch, loss

RECORDS_AT_ONCE = 64  # whose whole gradients the hooks hold
REFUSES_LSTM = "Opacus refuses nn.LSTM: this is its own DPLSTM with the same weights"


class OpacusHooks:
    """Whole gradients of each record by hooks, in micro-batches."""

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        self.note = _without_lstm(model)
        ModuleValidator.validate(model, strict=True)
        self._wrapped = GradSampleModule(model, loss_reduction="mean")
        self._optimizer = DPOptimizer(
            torch.optim.SGD(trained(model).values(), lr=RATE),
            noise_multiplier=NOISE_MULTIPLIER,
            max_grad_norm=setting.clipping_norm,
            expected_batch_size=setting.records,
        )

    def step(self, batch: Batch) -> None:
        """Take one private step; all micro-batches but the last only add to the sum."""
        micro_batches = pieces(batch, RECORDS_AT_ONCE)
        for number, piece in enumerate(micro_batches, start=1):
            self._optimizer.signal_skip_step(do_skip=number < len(micro_batches))
            self._optimizer.zero_grad()
            loss(self._wrapped, piece).mean().backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()

    def clipped_sum(self, batch: Batch) -> ClippedSum | None:
        """Return the sum."""
        loss(self._wrapped, batch).mean().backward()  # type: ignore[no-untyped-call]
        self._optimizer.clip_and_accumulate()
        return ClippedSum(_summed(self._wrapped))


class OpacusGhost:
    """Norms without whole gradients, then a second backward pass: "ghost clipping"."""

    def __init__(self, model: nn.Module, setting: Setting) -> None:
        self.note = _without_lstm(model)
        ModuleValidator.validate(model, strict=True)
        self._wrapped = GradSampleModuleFastGradientClipping(
            model, loss_reduction="mean", max_grad_norm=setting.clipping_norm
        )
        self._optimizer = DPOptimizerFastGradientClipping(
            torch.optim.SGD(trained(model).values(), lr=RATE),
            noise_multiplier=NOISE_MULTIPLIER,
            max_grad_norm=setting.clipping_norm,
            expected_batch_size=setting.records,
        )

    def step(self, batch: Batch) -> None:
        """Take one private step."""
        self._optimizer.zero_grad()
        self._backward(batch)
        self._optimizer.step()

    def clipped_sum(self, batch: Batch) -> ClippedSum | None:
        """Return the sum."""
        self._backward(batch)
        self._optimizer.accumulate()
        return ClippedSum(_summed(self._wrapped))

    def _backward(self, batch: Batch) -> None:
        losses = loss(self._wrapped, batch)
        DPTensorFastGradientClipping(self._wrapped, self._optimizer, losses, "mean").backward()


def _summed(wrapped: nn.Module) -> Tensor:
    return flat([p.summed_grad for p in trained(wrapped).values()])  # type: ignore[attr-defined]


def _without_lstm(model: nn.Module) -> str | None:
    """Put DPLSTM in the place of nn.LSTM, and say so."""
    note = None
    for name, child in list(model.named_children()):
        if isinstance(child, nn.LSTM):
            note = REFUSES_LSTM
            own = DPLSTM(
                child.input_size,
                child.hidden_size,
                batch_first=child.batch_first,
                bidirectional=child.bidirectional,
            )
            own.load_state_dict(child.state_dict())
            setattr(model, name, own)
    return note
