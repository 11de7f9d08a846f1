r"""The gradient of everything that multiplies: weights, biases, gates, patches.

Of :math:`y_t = W x_t + b` a unit's gradient is :math:`\sum_t g_t \otimes (x_t, 1)`. Its squared
norm is :math:`\sum_{t,s} \langle g_t, g_s \rangle (\langle x_t, x_s \rangle + 1)`, without the
gradient itself: a sum in which terms cancel. In float32 it may come out far too small for units
that were built for that, so it is raised by what rounding can have taken, and no norm is below the
true one.

Source:
    The two Gram matrices: Li et al. 2022, "Large Language Models Can Be Strong Differentially
    Private Learners", section 4. One backward pass and a weighted product for each layer: Bu et
    al. 2023, "Differentially Private Optimization on Large Model at Small Cost". Rounding of inner
    products: Higham 2002, "Accuracy and Stability of Numerical Algorithms", section 3.1.
"""

from __future__ import annotations

from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from private_step.grams import UNIT_ROUNDOFF, gram_squared_norms
from private_step.products import product
from private_step.tape import Tape

KEPT_VALUES = 1 << 22  # float32, 16 MiB: at most so much of whole gradients is kept for a layer


#: Where the clipped gradients of a weight, (out, in), and of a bias, (out,), go; None: not trained.
Sums: TypeAlias = tuple[Tensor | None, Tensor | None]
_Trained: TypeAlias = tuple[Tensor, Tensor | None]  # the same, of a layer whose weight is trained


def tokens(rows: Tensor) -> Tensor:
    """Return (records, ..., width) as (records, tokens, width)."""
    if rows.dim() == 2:  # noqa: PLR2004 (no dimension between records and width)
        return rows.unsqueeze(1)
    return rows.flatten(1, -2)


def book_affine(tape: Tape, x: Tensor, gradient: Tensor, sums: Sums) -> None:
    """Book the gradients of a weight and a bias.

    Args:
        tape: the micro-batch's.
        x: what was multiplied, shape (records, tokens, in).
        gradient: of what came out, shape (records, tokens, out).
        sums: where the clipped gradients go.
    """
    weight, bias = sums
    if weight is None:
        if bias is not None:
            book_per_unit(tape, tape.units.summed(gradient.sum(dim=1)), bias)
        return
    trained = weight, bias
    x_of_unit, gradient_of_unit = tape.units.together(x), tape.units.together(gradient)
    tokens_of_unit, width = x_of_unit.shape[1:]
    out = gradient_of_unit.shape[2]
    if tokens_of_unit * (width + out) > width * out:
        _book_whole(tape, (x, gradient), (x_of_unit, gradient_of_unit), trained)
        return
    squared = gram_squared_norms(x_of_unit, gradient_of_unit, ones=0 if bias is None else 1)
    tape.book(squared, partial(_add_weighted, tape, (x, gradient), trained))


def squared_norms(rows: Tensor) -> Tensor:
    """Return the squared norm of each row of (units, ..., n), and at least that."""
    squares = rows.square()
    summands = 8
    while squares.dim() > 1:  # one dimension at a time: short sums round little
        summands += squares.shape[-1]
        squares = squares.sum(dim=-1)
    return squares.mul_(1 + summands * UNIT_ROUNDOFF)


def book_per_unit(tape: Tape, of_unit: Tensor, total: Tensor) -> None:
    """Book one parameter's gradients, shape (units, *parameter), held as they are."""

    def add(factors: Tensor) -> None:
        total.add_((factors @ of_unit.flatten(1)).view_as(total))

    tape.book(squared_norms(of_unit), add)


def _book_whole(
    tape: Tape, rows: tuple[Tensor, Tensor], of_unit: tuple[Tensor, Tensor], sums: _Trained
) -> None:
    """Book by way of whole gradients, which are smaller than the two Gram matrices."""
    weight, bias = sums
    x, gradient = of_unit
    size = x.shape[2] * gradient.shape[2]
    if len(x) * size > KEPT_VALUES:
        squared = _squared_in_pieces(x, gradient, KEPT_VALUES // size)
        if bias is not None:
            squared += squared_norms(gradient.sum(dim=1))
        tape.book(squared, partial(_add_weighted, tape, rows, sums))
        return
    whole = torch.bmm(gradient.transpose(1, 2), x)
    book_per_unit(tape, whole, weight)
    if bias is not None:
        book_per_unit(tape, gradient.sum(dim=1), bias)


def _squared_in_pieces(x: Tensor, gradient: Tensor, units_at_once: int) -> Tensor:
    """Return squared norms of whole gradients that are not kept, raised by their rounding."""
    found = []
    for start in range(0, len(x), max(1, units_at_once)):
        piece = slice(start, start + max(1, units_at_once))
        whole = torch.bmm(gradient[piece].transpose(1, 2), x[piece])
        found.append(squared_norms(whole))
    squared = torch.cat(found)
    lengths = torch.linalg.vector_norm(x, dim=2) * torch.linalg.vector_norm(gradient, dim=2)
    lost = lengths.sum(dim=1) * ((x.shape[1] + 8) * UNIT_ROUNDOFF)  # of the norm, by rounding
    raised: Tensor = squared.sqrt() + lost
    return raised.square_()


def _add_weighted(tape: Tape, rows: tuple[Tensor, Tensor], sums: _Trained, factors: Tensor) -> None:
    """Add the product of all records' rows, each weighted by its unit's factor."""
    x, gradient = rows
    weight, bias = sums
    weights = tape.units.spread(factors)[:, None, None]
    weight.add_(weighted_product(gradient, x, weights))
    if bias is not None:
        per_token = weights.expand(-1, x.shape[1], 1).reshape(-1)
        bias.add_(per_token @ gradient.flatten(0, 1))


def weighted_product(gradient: Tensor, x: Tensor, weights: Tensor) -> Tensor:
    """Return the sum over rows of gradient times x, each row weighted, shape (out, in).

    The narrower side is cheaper to weigh, and to turn round: oneDNN copies what is not in rows.

    Args:
        gradient: shape (..., ..., out).
        x: shape (..., ..., in).
        weights: of a shape that both can be multiplied by, the last dimension 1.
    """
    if x.shape[2] <= gradient.shape[2]:
        return product(_weighted_and_turned(x, weights), gradient.flatten(0, 1).t()).t()
    return product(_weighted_and_turned(gradient, weights), x.flatten(0, 1).t())


def _weighted_and_turned(rows: Tensor, weights: Tensor) -> Tensor:
    """Return the product of the two, from (..., ..., width) to (width, rows)."""
    turned = rows.new_empty(rows.shape[2], *rows.shape[:2])
    torch.mul(rows.permute(2, 0, 1), weights.permute(2, 0, 1), out=turned)
    return turned.flatten(1)
