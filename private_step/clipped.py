r"""The sum of clipped gradients of a plain module, by one forward and one backward pass.

Every trained module runs with detached parameters. When the gradient of its output comes by, it
books its part of each unit's squared norm. Then one factor for each unit, over all parameters
together, and one weighted product for each module, into one flat vector. Micro-batches add to the
same vector, so memory does not grow with the batch.

Soundness. Norms are never below the true ones (`private_step.affine`). The float32 sum over a
batch rounds too, which could let one unit move it by more than the clipping norm C, so units are
clipped to a little less: see `MARGIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from private_step.devices import full_precision
from private_step.errors import (
    BatchNormForbidden,
    LossWithoutGradient,
    ModuleRanTwice,
    NotPerExample,
    ParameterUsedOutside,
    TiedParameter,
    TooManyRecords,
    UnsupportedModule,
)
from private_step.rules import Rule, rule_of
from private_step.tape import Tape, Workspace
from private_step.units import Units

Batch: TypeAlias = tuple[Tensor, ...]  # each of shape (records, ...)
Loss: TypeAlias = Callable[[nn.Module, Batch], Tensor]  # shape (records,): one loss for each

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

#: Of the clipping norm, kept free for the rounding of the float32 sum. With independent rounding
#: errors of at most u = 2^-24 each, a sum of K rows in J pieces of n units, no partial sum of which
#: is above its units' total nC, is off by at most lambda u C sqrt(J K n^2 / 3 + J (Jn)^2 / 3) but
#: for a probability of about exp(-lambda^2 / 2) (Higham and Mary 2019, "A New Approach to
#: Probabilistic Rounding Error Analysis"). With and without one unit, lambda = 6 and K = 8192, that
#: is 0.0067 for 812 units that are alone in their pieces, n = 1, and less for any n up to 64; real
#: sums were seen to be off by millionths.
MARGIN = 2.0**-7
NORM_ROUNDING = 2.0**-16  # of a squared norm: by so much is it raised for its sum over layers
MOST_UNITS_AT_ONCE = 64  # n
UNITS_WITHIN_MARGIN = 812  # J n: above it the margin grows with the power 3/2


@dataclass(frozen=True)
class _Watched:
    """A module that trains, and the rule that runs it."""

    name: str
    module: nn.Module
    rule: Rule


class ClippedGradients:
    """Adds clipped gradients of a module's trained parameters into one flat vector."""

    def __init__(self, model: nn.Module, loss: Loss, *, expected_units: float = 1.0) -> None:
        """Find the rule for every module that trains.

        Args:
            model: a plain module; between calls it is as it was. Its trained parameters become
                views of one flat vector, in the order of their names. All is computed where they
                lie, on a processor or a GPU.
            loss: gives one loss for each record, shape (records,); no record sways another's.
            expected_units: how many units a batch has on average, a public constant: what the
                margin for rounding is made for.

        Raises:
            UnsupportedModule, TiedParameter, BatchNormForbidden: by name, with the way out.
        """
        self.model = model
        self._loss = loss
        self._watched = tuple(_watched(model))
        self._named = _trained(model)
        self.parameters = torch.cat([p.detach().reshape(-1) for p in self._named.values()])
        self.total = torch.zeros_like(self.parameters)
        views = zip(self._named.values(), self._views(self.total), strict=True)
        self._sums: dict[Tensor, Tensor] = dict(views)
        self.use(self.parameters)
        self.expect(expected_units)
        self._ran: set[str] = set()
        self._workspace = Workspace()

    def expect(self, units: float) -> None:
        """Make the margin for batches of so many units on average: a public constant."""
        self.margin = MARGIN * max(1.0, units / UNITS_WITHIN_MARGIN) ** 1.5

    def use(self, parameters: Tensor) -> None:
        """Let the model's trained parameters be views of `parameters`, shape (parameters,)."""
        self.parameters = parameters
        with torch.no_grad():
            for p, view in zip(self._named.values(), self._views(parameters), strict=True):
                p.data = view

    def add(self, batch: Batch, clipping_norm: float, of_unit: Tensor | None = None) -> Tensor:
        """Add the clipped gradients of a micro-batch's units to `total`.

        Args:
            batch: each tensor has one row for each record; there may be none. It lies where the
                model does.
            clipping_norm: C > 0: adding or removing one unit moves the sum by at most C.
            of_unit: each record's unit, shape (records,), 0, 0, 1, ..., wherever it lies; None:
                each its own. All records of a unit are in one micro-batch.

        Returns:
            The units' norms, shape (units,), float64, never below the true ones; infinite where a
            gradient is not finite: such a unit adds nothing.

        Raises:
            TooManyRecords: the micro-batch has more units than the margin allows.
            RequestError: what only a forward pass can show; see `private_step.errors`.
        """
        records = len(batch[0])
        units = Units.each(records) if of_unit is None else Units.of(of_unit).on(self.total.device)
        if units.count > MOST_UNITS_AT_ONCE:
            raise TooManyRecords(got=units.count, most=MOST_UNITS_AT_ONCE)
        if not records:
            return self.total.new_zeros(0, dtype=torch.float64)
        with full_precision(self.total.device):
            tape = self._backward(batch, units)
        norms = tape.squared.double().mul_(1 + NORM_ROUNDING).sqrt_()
        there = norms.isfinite()
        if not bool(there.all()):
            return self._without(batch, clipping_norm, units, there)
        with torch.no_grad(), full_precision(self.total.device):
            tape.add_clipped(self._factors(norms, clipping_norm).to(self.total.dtype))
        return norms

    def add_large(self, pieces: Iterable[Batch], clipping_norm: float) -> Tensor:
        """Add the clipped gradient of one unit that has more records than a micro-batch takes.

        A unit on its own needs no norms apart: its gradient is accumulated over `pieces` by plain
        autograd, in float64, and its norm is taken of the whole.

        Args:
            pieces: the unit's records, each tensor with one row for each; a piece is asked for when
                its turn comes, so that memory does not grow with the unit.
            clipping_norm: C > 0: adding or removing the unit moves the sum by at most C.

        Returns:
            The unit's norm, shape (1,), float64; infinite where its gradient is not finite: then it
            adds nothing.

        Raises:
            NotPerExample, LossWithoutGradient: the loss is none that can be clipped.
        """
        whole = torch.zeros_like(self.total, dtype=torch.float64)
        for piece in pieces:
            with full_precision(self.total.device):
                whole += self._gradient_of(piece)
        norm: Tensor = torch.linalg.vector_norm(whole).reshape(1)
        if not bool(norm.isfinite()):
            return norm.fill_(float("inf"))
        self.total += whole.mul_(self._factors(norm, clipping_norm)).to(self.total.dtype)
        return norm

    def clear(self) -> None:
        """Begin a new sum."""
        self.total.zero_()

    def names_where(self, found: Tensor, expected: Tensor, *, most: float) -> list[str]:
        """Return the parameters of which two flat vectors differ by a norm above `most`."""
        pairs = zip(self._views(found), self._views(expected), strict=True)
        apart = [float((one - other).norm()) > most for one, other in pairs]
        return [name for name, is_apart in zip(self._named, apart, strict=True) if is_apart]

    def _factors(self, norms: Tensor, clipping_norm: float) -> Tensor:
        """Return what scales gradients of these norms down to C less the margin."""
        factors: Tensor = clipping_norm * (1 - self.margin) / norms
        return factors.clamp_(max=1.0)

    def _without(self, batch: Batch, clipping_norm: float, units: Units, there: Tensor) -> Tensor:
        """Add the micro-batch without the units whose gradients are not finite."""
        keep = units.spread(there)
        of_unit = None
        if units.of_record is not None:
            of_unit = torch.unique(units.of_record[keep], return_inverse=True)[1]
        norms = self.total.new_full((units.count,), float("inf"), dtype=torch.float64)
        norms[there] = self.add(tuple(x[keep] for x in batch), clipping_norm, of_unit)
        return norms

    def _backward(self, batch: Batch, units: Units) -> Tape:
        tape = Tape(units, self._sums, self.total, self._workspace)
        for p in self._named.values():
            p.grad = None
        with torch.enable_grad(), self._watching(tape):
            losses = self._loss(self.model, batch)
        _check_losses(losses, units.records)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        for name, p in self._named.items():
            if p.grad is not None:
                p.grad = None
                raise ParameterUsedOutside(name)
        return tape

    def _gradient_of(self, batch: Batch) -> Tensor:
        """Return the sum of the records' gradients by plain autograd, shape (parameters,)."""
        with torch.enable_grad():
            losses = self._loss(self.model, batch)
        _check_losses(losses, len(batch[0]))
        trained = tuple(self._named.values())
        found = torch.autograd.grad(losses.sum(), trained, materialize_grads=True)
        return torch.cat([gradient.reshape(-1) for gradient in found])

    @contextmanager
    def _watching(self, tape: Tape) -> Iterator[None]:
        """Let every trained module run by its rule."""
        self._ran.clear()
        for watched in self._watched:
            watched.module.__dict__["forward"] = partial(self._run, watched, tape)
        try:
            yield
        finally:
            for watched in self._watched:
                del watched.module.__dict__["forward"]

    def _run(self, watched: _Watched, tape: Tape, *inputs: Any, **named: Any) -> Any:
        if watched.name in self._ran:
            raise ModuleRanTwice(watched.name)
        self._ran.add(watched.name)
        tape.module = watched.name
        return watched.rule.run(watched.module, tape, *inputs, **named)

    def _views(self, flat: Tensor) -> list[Tensor]:
        pieces = torch.split(flat, [p.numel() for p in self._named.values()])
        return [piece.view(p.shape) for piece, p in zip(pieces, self._named.values(), strict=True)]


def refuse_batch_norms(model: nn.Module) -> None:
    """Raise BatchNormForbidden if a module normalises over the batch."""
    for name, module in model.named_modules():
        if isinstance(module, BATCH_NORMS):
            raise BatchNormForbidden(name)


def _check_losses(losses: Tensor, records: int) -> None:
    """Raise unless there is one loss for each record, with something to train by."""
    if losses.shape != (records,):
        raise NotPerExample(got=tuple(losses.shape), need=(records,))
    if not losses.requires_grad:
        raise LossWithoutGradient


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trained parameters in the order of their names; refuse tied ones."""
    found: dict[str, nn.Parameter] = {}
    names: dict[nn.Parameter, str] = {}
    for name, p in sorted(model.named_parameters(remove_duplicate=False)):
        if p.requires_grad:
            if p in names:
                raise TiedParameter(names[p], name)
            names[p] = name
            found[name] = p
    return found


def _watched(model: nn.Module) -> Iterator[_Watched]:
    """Yield each module that trains; raise for one that no rule covers."""
    refuse_batch_norms(model)
    covered: str | None = None  # what the names begin with that a rule above covers
    for name, module in model.named_modules():
        if covered is not None and name.startswith(covered):
            continue
        rule = rule_of(module)
        inside = rule is not None and rule.covers_children
        if not any(p.requires_grad for p in module.parameters(recurse=inside)):
            continue
        if rule is None:
            raise UnsupportedModule(name, type(module).__name__)
        if (why := rule.why_not(module)) is not None:
            raise UnsupportedModule(name, type(module).__name__, why=why)
        if inside:
            covered = f"{name}." if name else ""
        yield _Watched(name, module, rule)
