"""Units into micro-batches: a unit is never split, unless it is too large for one alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from common.errors import RequestError
from common.protocol import RefusalReason

UnitRows: TypeAlias = Sequence[int]  # the rows of one unit's records; at least one


class UnitsOverlap(RequestError):
    """A task's units are none that can be clipped apart."""

    field = "privacy.unit"
    reason = RefusalReason.DATA_UNFIT

    def __init__(self, row: int | None) -> None:
        found = "one without a row" if row is None else f"row {row} in two of them, or no such row"
        super().__init__(
            f"the task's data give units of privacy with {found}: clipping one would not bound "
            "what is in it; nothing was trained, mend the dataset's `units`"
        )


def checked(units: Sequence[UnitRows], count: int) -> Sequence[UnitRows]:
    """Return `units` of a data set of `count` rows; raise UnitsOverlap unless none share a row."""
    free = set(range(count))
    for unit in units:
        if not len(unit):
            raise UnitsOverlap(None)
        for row in unit:
            if row not in free:
                raise UnitsOverlap(row)
            free.remove(row)
    return units


@dataclass(frozen=True)
class MicroBatch:
    """Whole units that are worked on at once, or one that is too large for that."""

    units: tuple[UnitRows, ...]
    most: int  # records that are worked on at once

    @property
    def is_large(self) -> bool:
        """Whether it is one unit that has to be read in pieces."""
        return len(self.units) == 1 and len(self.units[0]) > self.most

    @property
    def rows(self) -> list[int]:
        """The rows of all records, those of one unit together."""
        return [row for unit in self.units for row in unit]

    @property
    def of_unit(self) -> list[int]:
        """Each record's unit: 0, 0, 1, 2, 2, ..."""
        return [place for place, unit in enumerate(self.units) for _ in unit]

    def pieces(self) -> Iterator[list[int]]:
        """Yield the rows, no more at once than can be worked on."""
        rows = self.rows
        for start in range(0, len(rows), self.most):
            yield rows[start : start + self.most]


def packed(units: Iterable[UnitRows], most: int) -> Iterator[MicroBatch]:
    """Yield all of `units` in their order, as many at once as fit.

    Units fit if as many of the largest of them would be at most `most` records: units are padded
    to the largest where their norms are taken. A unit of more records than that is alone.
    """
    together: list[UnitRows] = []
    longest = 0
    for unit in units:
        longest = max(longest, len(unit))
        if together and longest * (len(together) + 1) > most:
            yield MicroBatch(tuple(together), most)
            together, longest = [], len(unit)
        together.append(unit)
    if together:
        yield MicroBatch(tuple(together), most)
