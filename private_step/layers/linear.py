"""Linear layers, and every product with a weight that a module is made of."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function

from private_step.affine import book_affine, tokens
from private_step.products import product
from private_step.rules import rule_for
from private_step.tape import Observe, Tape


class _Linear(Function):
    """x W^T + b, of which the gradient of x alone is computed, and what books the others told."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, _anchor: Tensor, weight: Tensor, bias: Tensor | None, observe: Observe
    ) -> Tensor:
        ctx.save_for_backward(x)  # so that torch sees it if x is changed in place
        ctx.kept = (weight, observe)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        weight, observe = ctx.kept
        (gradient,) = gradients
        observe(x, gradient)
        below = product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return below, None, None, None, None


def watched_linear(
    tape: Tape, x: Tensor, weight: tuple[Tensor, Tensor | None], bias: tuple[Tensor | None, ...]
) -> Tensor:
    """Return x W^T + b and book the gradients of W and b.

    Args:
        tape: the micro-batch's.
        x: shape (records, ..., in).
        weight: W of shape (out, in), and the sum of its clipped gradients or None.
        bias: b of shape (out,) or None, and its sum or None.
    """
    tape.check_first_dimension(x)
    values, total = weight
    offset, offset_total = bias

    def observe(rows: Tensor, gradient: Tensor) -> None:
        book_affine(tape, tokens(rows), tokens(gradient), (total, offset_total))

    given = None if offset is None else offset.detach()
    weights = (values.detach(), given)
    output: Tensor = _Linear.apply(x, tape.anchor, *weights, observe)  # type: ignore[no-untyped-call]
    return output


@rule_for(nn.Linear)
def linear(module: nn.Linear, tape: Tape, x: Tensor) -> Tensor:
    """Run a linear layer."""
    weight = (module.weight, tape.sum_of(module.weight))
    return watched_linear(tape, x, weight, (module.bias, tape.sum_of(module.bias)))
