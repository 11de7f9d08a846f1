"""What one backward pass leaves behind: each unit's squared norm, and how to add its gradient.

A rule runs its module with detached parameters, so that the backward pass computes gradients of
inputs only. It watches the module's output: when the output's gradient comes by, the rule books
the units' squared norms, and how to add the clipped gradients once all norms are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

from private_step.errors import ChangedInPlace, UnitsNotFirst
from private_step.units import Units

Observe: TypeAlias = Callable[[Tensor], None]  # takes the gradient of an output
AddClipped: TypeAlias = Callable[[Tensor], None]  # takes one factor for each unit, shape (units,)


class Workspace:
    """Memory that is used again and again: the system takes its time to clear fresh pages."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held: Tensor | None = None

    def rooms(self, shapes: tuple[tuple[int, ...], ...], like: Tensor) -> list[Tensor]:
        """Return room for values of the kind that `like` has; it takes what was given before."""
        counts = [math.prod(shape) for shape in shapes]
        held = self._held
        fits = held is not None and (held.dtype, held.device) == (like.dtype, like.device)
        if held is None or not fits or len(held) < sum(counts):
            held = self._held = like.new_empty(sum(counts))
        pieces = torch.split(held[: sum(counts)], counts)
        return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


class Tape:
    """The book of one micro-batch."""

    def __init__(
        self, units: Units, sums: Mapping[Tensor, Tensor], like: Tensor, workspace: Workspace
    ) -> None:
        """Book for `units`; `sums` has the sum of clipped gradients of each trained parameter."""
        self.units = units
        self.workspace = workspace  # for what is used up at once
        self.squared = like.new_zeros(units.count)  # norms, over what was booked
        self.module = ""  # the name of the one that is running
        self._sums = sums
        self.anchor = like.new_zeros((), requires_grad=True)  # puts things in the graph
        self._booked: list[AddClipped] = []

    def sum_of(self, parameter: Tensor | None) -> Tensor | None:
        """Return the sum of a parameter's clipped gradients; None: it is not trained."""
        return None if parameter is None else self._sums.get(parameter)

    def sum_of_trained(self, parameter: Tensor) -> Tensor:
        """Return the sum of clipped gradients of a parameter that is surely trained."""
        return self._sums[parameter]

    def check_first_dimension(self, x: Tensor) -> None:
        """Raise UnitsNotFirst unless `x` has one row for each record."""
        if x.dim() == 0 or x.shape[0] != self.units.records:
            got = tuple(x.shape)
            raise UnitsNotFirst(self.module, got=got, records=self.units.records)

    def watch(self, output: Tensor, x: Tensor, observe: Observe) -> Tensor:
        """Return `output`, of which `observe` will be given the gradient.

        Args:
            output: what the module gives for `x`, shape (records, ...).
            x: what it ran on; changed in place until then, it raises ChangedInPlace.
            observe: books the gradient; it is called once, during the backward pass.
        """
        self.check_first_dimension(output)
        name, version = self.module, x._version  # noqa: SLF001 (torch's own count of changes)

        def when_it_comes(gradient: Tensor) -> None:
            if x._version != version:  # noqa: SLF001
                raise ChangedInPlace(name)
            observe(gradient)

        if not output.requires_grad:
            output = _Start.apply(output, self.anchor)  # type: ignore[no-untyped-call]
        output.register_hook(when_it_comes)  # type: ignore[no-untyped-call]
        return output

    def book(self, squared: Tensor, add_clipped: AddClipped) -> None:
        """Add squared norms, shape (units,), none below the true ones; keep what adds them."""
        self.squared += squared
        self._booked.append(add_clipped)

    def add_clipped(self, factors: Tensor) -> None:
        """Add every booked gradient times its unit's factor, shape (units,), to the sums."""
        while self._booked:
            self._booked.pop()(factors)  # what it held is free for the next


class _Start(Function):
    """Makes a tensor part of the graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, _anchor: Tensor) -> Tensor:
        ctx.mark_dirty(x)  # so that it may be changed in place afterwards
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:  # noqa: ARG004
        return None, None
