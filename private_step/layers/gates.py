"""The recurrences themselves, step by step, with a backward pass that shows the gates' gradients.

Shapes: T steps, R records, D inputs, H hidden values. The input comes in the order of reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

from private_step.compiling import Code, compiled
from private_step.products import product, times

WORTH_COMPILING = 1 << 16  # values of all gates of a pass from which on the steps are compiled

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
        state = x.new_empty(records, width)  # the hidden state, without gaps
        for before, first in zip((state, cells[0]), start or (None, None), strict=True):
            before[:] = 0.0 if first is None else first
        read[0, :, inputs:] = state
        states = (gates, cells, squashed, read)
        step = _compiled_forward(states, state) or _plain_forward(states, state)
        added = times(weights.hidden.t().contiguous().t())  # in columns oneDNN takes it as it is
        for t in range(steps):
            step(t, added(state))
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
        carried = torch.zeros_like(squashed[0])  # the gradient of the cell, from the step above
        upper = (above.contiguous(), carried)
        step = _compiled_backward(states, upper, of_gates) or _plain_backward(
            states, upper, of_gates
        )
        found, before = torch.zeros_like(carried), times(weights.hidden.t())
        for t in range(len(gates) - 1, -1, -1):
            if gradients[1] is not None:
                carried += gradients[1][t]
            step(t, found)
            if t:
                found = before(of_gates[t])
        book(read[:-1], of_gates)
        below = product(of_gates, weights.input.t()) if ctx.needs_input_grad[0] else None
        return below, None, None, None, None


#: Gates (T, R, 4H), cells (T + 1, R, H), their tanh (T, R, H), and x_t and h_{t-1} side by side,
#: (T + 1, R, D + H).
_States: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
_Step: TypeAlias = Callable[[int, Tensor], None]  # of a number, and what was multiplied for it


def _plain_forward(states: _States, state: Tensor) -> _Step:
    """Return what writes the states of a step by torch, and the hidden one to `state` too.

    It is given what the state before adds to the gates; the rest stands in the gates' place.
    """
    gates, cells, squashed, read = states
    width = cells.shape[2]

    def step(t: int, raw: Tensor) -> None:
        raw += gates[t]
        into, forget, new, out = torch.sigmoid(raw, out=gates[t]).chunk(4, dim=1)
        torch.tanh(raw[:, 2 * width : 3 * width], out=new)
        cell = torch.mul(into, new, out=cells[t + 1]).addcmul_(forget, cells[t])
        torch.mul(out, torch.tanh(cell, out=squashed[t]), out=state)
        read[t + 1, :, -width:] = state

    return step


def _compiled_forward(states: _States, state: Tensor) -> _Step | None:
    """Return the same, compiled; None where it cannot be or is not worth it."""
    codes = _codes_for(states[0])
    if codes is None:
        return None
    records, width = state.shape
    call = codes[0].call(0, 0, *states, state, records, width, states[3].shape[2])
    return lambda t, raw: call.run(records, t, raw.data_ptr())


def _plain_backward(states: _States, above: tuple[Tensor, Tensor], of_gates: Tensor) -> _Step:
    """Return what writes the gradients of a step's gates, and carries that of its cell back.

    Args:
        states: of all steps.
        above: the gradients of the hidden states, (T, R, H), and of the cell, (R, H), the second
            changed in place.
        of_gates: where the gates' gradients go, (T, R, 4H).
    """
    gates, cells, squashed, _ = states
    from_above, carried = above
    width = carried.shape[1]

    def step(t: int, found: Tensor) -> None:
        entered, forgot, new, out = gates[t].chunk(4, dim=1)
        of_entered, of_forgot, of_new, of_out = of_gates[t].chunk(4, dim=1)
        tanh = squashed[t]
        through = (found[:, -width:] + from_above[t]).mul_(out)
        carried.add_(through)
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

    return step


def _compiled_backward(
    states: _States, above: tuple[Tensor, Tensor], of_gates: Tensor
) -> _Step | None:
    """Return the same, compiled; None where it cannot be or is not worth it."""
    codes = _codes_for(of_gates)
    if codes is None:
        return None
    from_above, carried = above
    records, width = carried.shape
    call = codes[1].call(0, 0, from_above, *states[:3], of_gates, carried, records, width)
    return lambda t, found: call.run(records, t, found.data_ptr())


def _codes_for(gates: Tensor) -> tuple[Code, Code] | None:
    large = gates.numel() >= WORTH_COMPILING
    on_cpu = gates.device.type == "cpu" and gates.dtype == torch.float32
    return _codes() if large and on_cpu else None


@cache
def _codes() -> tuple[Code, Code] | None:
    """Compile a step forward and one back, once; None where llvmlite is not installed."""
    try:
        from private_step.layers import gate_kernels as kernels  # noqa: PLC0415 (may be missing)
    except ImportError:
        return None
    return compiled(kernels.forward_kernel()), compiled(kernels.backward_kernel())


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
