"""The recurrences themselves, step by step, with a backward pass that shows the gates' gradients.

Shapes: T steps, R records, D inputs, H hidden values. The input comes in the order of reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

from private_step.compiling import Code, compiled, has_wide_registers
from private_step.products import product

if TYPE_CHECKING:
    from private_step.layers.gate_kernels import Tile

WORTH_COMPILING = 1 << 14  # values of all gates of a pass from which on the steps are compiled

#: Takes what was multiplied in each step, x and the state before side by side, (T, R, D + H), and
#: the gradients of the products, (T, R, gates): from x and from the state, or of both together.
Book: TypeAlias = Callable[..., None]


@dataclass(frozen=True)
class Weights:
    """One direction of a layer, without a graph, gates stacked as torch stacks them."""

    input: Tensor  # (gates, D)
    hidden: Tensor  # (gates, H)
    input_bias: Tensor | None  # (gates,)
    hidden_bias: Tensor | None


class Lstm(Function):
    r"""The LSTM of torch.nn: gates i, f, g, o.

    .. math:: c_t = \sigma(f) c_{t-1} + \sigma(i) \tanh(g), \quad h_t = \sigma(o) \tanh(c_t)

    Source:
        Hochreiter and Schmidhuber 1997, "Long Short-Term Memory", with the forget gate of Gers et
        al. 2000.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _anchor: Tensor,
        start: tuple[Tensor, Tensor] | None,
        weights: Weights,
        book: Book,
    ) -> tuple[Tensor, Tensor]:
        """Return hidden states and cells after each step, each of shape (T, R, H).

        Args:
            ctx: torch's.
            x: shape (T, R, D).
            start: hidden states and cells before the first step, each (R, H); None: zeros.
            weights: of the direction.
            book: is given the gradients in the backward pass.
        """
        steps, records, inputs = x.shape
        width = weights.hidden.shape[1]
        read = x.new_empty(steps + 1, records, inputs + width)  # x_t and h_{t-1} side by side
        read[:steps, :, :inputs] = x
        bias = _sum(weights.input_bias, weights.hidden_bias)
        gates = product(x, weights.input, bias)  # of the input's part, of all steps at once
        cells = x.new_empty(steps + 1, records, width)
        squashed = x.new_empty(steps, records, width)  # tanh of the cells
        before = (read[0, :, inputs:], cells[0])
        for state, first in zip(before, start or (None, None), strict=True):
            state[:] = 0.0 if first is None else first
        states = (gates, cells, squashed, read)
        _through_steps(states, weights.hidden)
        ctx.save_for_backward(x)
        ctx.kept = (states, weights, book)
        ctx.set_materialize_grads(False)
        return read[1:, :, inputs:], cells[1:]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradient of x; book those of the weights."""
        assert ctx.saved_tensors is not None  # noqa: S101 (raises if x was changed in place)
        states, weights, book = ctx.kept
        gates, _, squashed, read = states
        above = torch.zeros_like(squashed) if gradients[0] is None else gradients[0]
        of_gates = torch.empty_like(gates)
        upper = (above.contiguous(), gradients[1])
        _back_through_steps(states, weights.hidden, upper, of_gates)
        book(read[:-1], of_gates)
        below = product(of_gates, weights.input.t()) if ctx.needs_input_grad[0] else None
        return below, None, None, None, None


#: Gates (T, R, 4H), cells (T + 1, R, H), their tanh (T, R, H), and x_t and h_{t-1} side by side,
#: (T + 1, R, D + H).
_States: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


def _through_steps(states: _States, weights: Tensor) -> None:
    """Write the states after each step; at first the gates hold what the input gives to them."""
    gates, cells, squashed, read = states
    width = cells.shape[2]
    codes = _codes_for(gates)
    if codes is not None:
        sizes = (*squashed.shape, read.shape[2])
        codes.forward.call(weights.t().contiguous(), *states, *sizes).run(codes.parts(gates))
        return
    for t, gate in enumerate(gates):
        raw = product(read[t, :, -width:], weights).add_(gate)
        into, forget, new, out = torch.sigmoid(raw, out=gate).chunk(4, dim=1)
        torch.tanh(raw[:, 2 * width : 3 * width], out=new)
        cell = torch.mul(into, new, out=cells[t + 1]).addcmul_(forget, cells[t])
        torch.mul(out, torch.tanh(cell, out=squashed[t]), out=read[t + 1, :, -width:])


def _back_through_steps(
    states: _States, weights: Tensor, above: tuple[Tensor, Tensor | None], of_gates: Tensor
) -> None:
    """Write the gradients of the gates.

    Args:
        states: of all steps.
        weights: of the state, (4H, H).
        above: the gradients of the hidden states and of the cells, each (T, R, H); None: zeros.
        of_gates: where they go, (T, R, 4H).
    """
    squashed = states[2]
    carried = torch.zeros_like(squashed[0])  # the gradient of the cell, from the step above
    codes = _codes_for(of_gates) if above[1] is None else None
    if codes is not None:
        arrays = (weights.contiguous(), above[0], *states[:3], of_gates, carried)
        codes.backward.call(*arrays, *squashed.shape).run(codes.parts(of_gates))
        return
    turned, found = weights.t(), torch.zeros_like(carried)
    for t in range(len(of_gates) - 1, -1, -1):
        if above[1] is not None:
            carried += above[1][t]
        _back_one_step(states, t, (found.add_(above[0][t]), carried), of_gates[t])
        if t:
            found = product(of_gates[t], turned)


def _back_one_step(states: _States, t: int, above: tuple[Tensor, Tensor], of_gates: Tensor) -> None:
    """Write the gradients of one step's gates; both of those above are used up.

    That of the cell becomes the gradient of the cell before.
    """
    gates, cells, squashed, _ = states
    through, carried = above
    entered, forgot, new, out = gates[t].chunk(4, dim=1)
    of_entered, of_forgot, of_new, of_out = of_gates.chunk(4, dim=1)
    tanh = squashed[t]
    carried.add_(through.mul_(out))
    through.mul_(tanh)
    carried.addcmul_(through, tanh, value=-1)
    torch.addcmul(through, through, out, value=-1, out=of_out)
    scaled = carried * entered
    both = scaled * new
    torch.addcmul(scaled, both, new, value=-1, out=of_new)
    torch.addcmul(both, both, entered, value=-1, out=of_entered)
    carried.mul_(forgot)
    remembered = torch.mul(carried, cells[t], out=scaled)
    torch.addcmul(remembered, remembered, forgot, value=-1, out=of_forgot)


@dataclass(frozen=True)
class _Codes:
    """All steps of an LSTM, forward and back, compiled."""

    forward: Code
    backward: Code
    records: int  # of a part

    def parts(self, gates: Tensor) -> int:
        return -(-gates.shape[1] // self.records)


def _codes_for(gates: Tensor) -> _Codes | None:
    """Return the compiled steps; None where they cannot be had or are not worth it."""
    large = gates.numel() >= WORTH_COMPILING
    on_cpu = gates.device.type == "cpu" and gates.dtype == torch.float32
    return _codes() if large and on_cpu else None


@cache
def _codes() -> _Codes | None:
    """Return the steps compiled for this processor; None where llvmlite is not installed."""
    try:
        from private_step.layers import gate_kernels as kernels  # noqa: PLC0415 (may be missing)
    except ImportError:
        return None
    return _compiled(kernels.WIDE if has_wide_registers() else kernels.NARROW)


@cache
def _compiled(tile: Tile) -> _Codes:
    from private_step.layers import gate_kernels as kernels  # noqa: PLC0415 (needs llvmlite)

    forward, backward = compiled(kernels.Forward(tile)), compiled(kernels.Backward(tile))
    return _Codes(forward, backward, tile.records)


class Gru(Function):
    r"""The GRU of torch.nn: gates r, z, n.

    .. math:: n = \tanh(W_n x + b_n + r \odot (U_n h_{t-1} + u_n)), \quad
       h_t = (1 - z) \odot n + z \odot h_{t-1}

    Source:
        Cho et al. 2014, "Learning Phrase Representations using RNN Encoder-Decoder", with the
        reset gate behind the product, as torch has it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _anchor: Tensor,
        start: tuple[Tensor] | None,
        weights: Weights,
        book: Book,
    ) -> tuple[Tensor]:
        """Return the hidden states after each step, shape (T, R, H); see `Lstm.forward`."""
        steps, records, _ = x.shape
        width = weights.hidden.shape[1]
        gates = product(x, weights.input, weights.input_bias)
        hidden = x.new_empty(steps + 1, records, width)
        hidden[0] = 0.0 if start is None else start[0]
        gated = x.new_empty(steps, records, width)  # U_n h + u_n
        for t, gate in enumerate(gates.unbind(0)):
            added = product(hidden[t], weights.hidden, weights.hidden_bias)
            reset_update, new = torch.split(gate, [2 * width, width], dim=1)
            reset_update.add_(added[:, : 2 * width]).sigmoid_()
            reset, update = reset_update.chunk(2, dim=1)
            gated[t] = added[:, 2 * width :]
            new.addcmul_(reset, gated[t]).tanh_()
            torch.lerp(new, hidden[t], update, out=hidden[t + 1])
        ctx.save_for_backward(x)
        ctx.kept = (gates, hidden, gated, weights, book)
        return (hidden[1:],)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of x; book those of the weights."""
        (x,) = ctx.saved_tensors
        gates, hidden, gated, weights, book = ctx.kept
        of_input, of_hidden = torch.empty_like(gates), torch.empty_like(gates)
        turned = weights.hidden.t()
        here = gradients[0][-1]
        for t in range(len(gates) - 1, -1, -1):
            reset, update, new = gates[t].chunk(3, dim=1)
            of_new = here * (1 - update) * (1 - new.square())
            of_update = here * (hidden[t] - new) * update * (1 - update)
            of_reset = of_new * gated[t] * reset * (1 - reset)
            torch.cat([of_reset, of_update, of_new], dim=1, out=of_input[t])
            torch.cat([of_reset, of_update, of_new * reset], dim=1, out=of_hidden[t])
            if t:
                below = product(of_hidden[t], turned).addcmul_(here, update)
                here = below.add_(gradients[0][t - 1])
        book(x, hidden[:-1], of_input, of_hidden)
        of_x = product(of_input, weights.input.t()) if ctx.needs_input_grad[0] else None
        return of_x, None, None, None, None


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return one if other is None else other if one is None else one + other
