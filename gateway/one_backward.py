"""Clipped gradients by one backward pass for a whole micro-batch: what a gateway trains by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.errors import RequestError
from gateway.dp_sgd import ClippedSum, count_within
from gateway.packing import UnitRows, packed
from gateway.training import ReadBatch
from private_step import Batch, ClippedGradients, Loss
from private_step.checks import check_records_alone, check_rules
from private_step.clipped import MOST_UNITS_AT_ONCE


class NotInOneBackward(RequestError):
    """The task's model is none that one backward pass can train privately."""

    def __init__(self, why: RequestError) -> None:
        way_out = (
            'gradients = "functional" in gateway.toml, or `fedgate try --gradients functional`'
        )
        super().__init__(f"{why} (a gateway: {way_out})")


class OneBackward:
    """The sum of clipped gradients, by the rules of `private_step`.

    The model is in evaluation mode (no dropout), its frozen parameters and buffers do not change.
    """

    def __init__(
        self, model: nn.Module, loss: Loss, batch: ReadBatch, specimens: Batch, micro_batch: int
    ) -> None:
        """Check the model on `specimens`, a few made-up examples; read real ones by `batch(rows)`.

        Raises:
            NotInOneBackward: the model cannot be trained so; by name, with the way out.
        """
        try:
            check_records_alone(model.eval(), loss, specimens)
            self._gradients = ClippedGradients(model, loss)
            check_rules(self._gradients, loss, specimens)
        except RequestError as error:
            raise NotInOneBackward(error) from error
        self._batch = batch
        self._at_once = min(micro_batch, MOST_UNITS_AT_ONCE)

    def clipped_sum(
        self, parameters: Tensor, units: Sequence[UnitRows], expected: float, clipping_norm: float
    ) -> ClippedSum:
        """Return the sum of the units' clipped gradients, float32, and their count.

        Rows are read only when their turn comes, whole units at once; without units nothing is. The
        norms that are counted by are raised for rounding, never below the true ones, and units are
        clipped to a little less than C: one unit still moves the count by at most 1/2, since what
        it adds is never more (`count_within`, also for what its company changes of its norm).
        """
        gradients = self._gradients
        gradients.use(parameters)
        gradients.expect(expected)
        gradients.clear()
        count = 0.0
        for some in packed(units, self._at_once):
            if some.is_large:
                norms = gradients.add_large(map(self._batch, some.pieces()), clipping_norm)
            else:
                of_unit = torch.tensor(some.of_unit)
                norms = gradients.add(self._batch(some.rows), clipping_norm, of_unit)
            count += count_within(norms, clipping_norm)
        return ClippedSum(gradients.total, count)
