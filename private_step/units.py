"""Which records belong to which unit: what is clipped once, as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from private_step.errors import UnitsNotInOrder


@dataclass(frozen=True)
class Units:
    """The records of a micro-batch, by unit; the records of one unit stand together."""

    records: int
    count: int
    of_record: Tensor | None  # shape (records,), int64, rising from 0; None: each its own unit
    most: int  # records of the largest unit

    @classmethod
    def each(cls, records: int) -> Self:
        """Every record is a unit of its own."""
        return cls(records, records, None, 1)

    @classmethod
    def of(cls, of_record: Tensor) -> Self:
        """Records belong to the units `of_record` names, shape (records,): 0, 0, 1, 2, 2, ...

        Raises:
            UnitsNotInOrder: they do not rise from 0 without a gap.
        """
        if not len(of_record):
            return cls.each(0)
        steps = of_record.diff(prepend=of_record.new_full((1,), -1))
        if not (bool(((steps == 0) | (steps == 1)).all()) and int(steps[0]) == 1):
            raise UnitsNotInOrder
        count = int(of_record[-1]) + 1
        if count == len(of_record):
            return cls.each(count)
        return cls(len(of_record), count, of_record, int(of_record.bincount().max()))

    def on(self, device: torch.device) -> Self:
        """Return the same units, told apart on `device`; they are counted on the processor."""
        return (
            self if self.of_record is None else replace(self, of_record=self.of_record.to(device))
        )

    def together(self, rows: Tensor) -> Tensor:
        """Return `rows` by unit: from (records, tokens, n) to (count, tokens of a unit, n).

        Units with fewer records than the largest end in zeros.
        """
        if self.of_record is None:
            return rows
        tokens, width = rows.shape[1:]
        padded = rows.new_zeros(self.count * self.most, tokens, width)
        padded.index_copy_(0, self._places(self.of_record), rows)
        return padded.view(self.count, self.most * tokens, width)

    def summed(self, rows: Tensor) -> Tensor:
        """Return the sum over each unit's records: from (records, n) to (count, n)."""
        if self.of_record is None:
            return rows
        total = rows.new_zeros(self.count, *rows.shape[1:])
        return total.index_add_(0, self.of_record, rows)

    def spread(self, of_unit: Tensor) -> Tensor:
        """Give each record its unit's value: from (count,) to (records,)."""
        return of_unit if self.of_record is None else of_unit[self.of_record]

    def unit_of_each(self, device: torch.device) -> Tensor:
        """Return each record's unit, shape (records,)."""
        if self.of_record is None:
            return torch.arange(self.records, device=device)
        return self.of_record

    def _places(self, of_record: Tensor) -> Tensor:
        """Where each record stands among `count` times `most` places."""
        first = torch.searchsorted(of_record, of_record)
        within = torch.arange(self.records, device=of_record.device) - first
        return of_record * self.most + within
