"""A line of values over rounds, as SVG that needs no script: its colours are the page's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH, HEIGHT = 420.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 40.0, 10.0, 10.0, 28.0
TICKS = 5
MOST_DOTS = 60  # with more the line alone is drawn


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what stands beside it."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Where everything lies, in the units of the view box."""

    line: str  # points of a polyline
    dots: tuple[tuple[float, float], ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def chart_of(points: Sequence[tuple[int, float]], *, last: int) -> Chart:
    """Return the chart of (round, value); the axis across ends with round `last`."""
    values = [value for _, value in points] or [0.0]
    step = _step((max(values) - min(values)) or 1.0)
    low, high = math.floor(min(values) / step) * step, math.ceil(max(values) / step) * step
    high = max(high, low + step)
    end = max(last, 1)

    def across(number: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * number / end

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    placed = tuple((round(across(n), 1), round(up(value), 1)) for n, value in points)
    rounds = max(1, round(_step(end)))
    return Chart(
        line=" ".join(f"{x},{y}" for x, y in placed),
        dots=placed if len(placed) <= MOST_DOTS else (),
        across=tuple(Tick(round(across(n), 1), str(n)) for n in range(0, end + 1, rounds)),
        up=tuple(
            Tick(round(up(low + n * step), 1), f"{low + n * step:.4g}")
            for n in range(round((high - low) / step) + 1)
        ),
    )


def _step(span: float) -> float:
    """Return a round distance, of which about TICKS fit into `span`."""
    raw = span / TICKS
    whole: float = 10.0 ** math.floor(math.log10(raw))
    return next((whole * n for n in (1.0, 2.0, 5.0) if whole * n >= raw), whole * 10)
