"""LSTM and GRU layers, with a backward pass of their own that shows the gradients of the gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from private_step.affine import (
    Sums,
    book_affine,
    weighted_product,
)
from private_step.errors import UnsupportedModule
from private_step.grams import gram_squared_norms
from private_step.layers.gates import Book, Gru, Lstm, Weights
from private_step.rules import rule_for
from private_step.tape import Tape

Recurrent: TypeAlias = nn.LSTM | nn.GRU
States: TypeAlias = tuple[Tensor, ...]  # hidden, and the cell of an LSTM


def _why_not(module: Recurrent) -> str | None:
    return "proj_size is not covered" if module.proj_size else None


@rule_for(nn.LSTM, why_not=_why_not)
def lstm(
    module: nn.LSTM,
    tape: Tape,
    x: Tensor | PackedSequence,
    hx: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
    """Run an LSTM with the arguments and results of `torch.nn.LSTM.forward`."""
    output, (hidden, cell) = _run(module, tape, x, hx)
    return output, (hidden, cell)


@rule_for(nn.GRU)
def gru(
    module: nn.GRU, tape: Tape, x: Tensor | PackedSequence, hx: Tensor | None = None
) -> tuple[Tensor | PackedSequence, Tensor]:
    """Run a GRU with the arguments and results of `torch.nn.GRU.forward`."""
    output, (hidden,) = _run(module, tape, x, None if hx is None else (hx,))
    return output, hidden


def _run(
    module: Recurrent, tape: Tape, x: Tensor | PackedSequence, start: States | None
) -> tuple[Tensor | PackedSequence, States]:
    if start is not None and any(each.requires_grad for each in start):
        why = "its initial state has a gradient of its own"
        raise UnsupportedModule(tape.module, type(module).__name__, why=why)
    lengths = None
    if isinstance(x, PackedSequence):
        padded, lengths = pad_packed_sequence(x)  # time first, records in the caller's order
    else:
        padded = x.transpose(0, 1) if module.batch_first else x
    tape.check_first_dimension(padded.transpose(0, 1))
    # torch wants the lengths on the processor, where it packs; here they meet what was read
    backwards = _Reversal(None if lengths is None else lengths.to(padded.device), len(padded))
    finals = []
    for layer in range(module.num_layers):
        first = None if start is None else _of_layer(module, start, layer)
        padded, final = _layer(module, tape, padded, (layer, first, backwards))
        finals.append(final)
        if layer + 1 < module.num_layers and module.dropout:
            padded = functional.dropout(padded, module.dropout, module.training)
    states = tuple(torch.cat(each) for each in zip(*finals, strict=True))
    if isinstance(x, PackedSequence):
        assert lengths is not None  # noqa: S101 (for the type checker)
        sorted_already = x.sorted_indices is None
        return pack_padded_sequence(padded, lengths, enforce_sorted=sorted_already), states
    return padded.transpose(0, 1) if module.batch_first else padded, states


def _layer(
    module: Recurrent,
    tape: Tape,
    x: Tensor,
    which: tuple[int, States | None, _Reversal],
) -> tuple[Tensor, States]:
    """Return one layer's outputs, time first, and its final states, directions first."""
    layer, start, backwards = which
    directions, finals = [], []
    for direction in range(1 + module.bidirectional):
        parameters = _Parameters.of(module, layer, direction)
        read = backwards(x) if direction else x
        first = None if start is None else tuple(each[direction] for each in start)
        cell, booking = (
            (Lstm, _lstm_booking) if isinstance(module, nn.LSTM) else (Gru, _gru_booking)
        )
        book = booking(tape, parameters)
        outputs = cell.apply(read, tape.anchor, first, parameters.detached(), book)  # type: ignore[no-untyped-call]
        hidden = backwards.masked(outputs[0])
        directions.append(backwards(hidden) if direction else hidden)
        finals.append(tuple(backwards.last(each) for each in outputs))
    states = tuple(torch.stack(each) for each in zip(*finals, strict=True))
    return torch.cat(directions, dim=-1), states


class _Reversal:
    """Turns sequences round, each within its own length."""

    def __init__(self, lengths: Tensor | None, steps: int) -> None:
        self._lengths = lengths
        self._there: Tensor | None = None  # shape (time, records), 1 where there is a token
        if lengths is not None:
            time = torch.arange(steps, device=lengths.device)[:, None]
            self._there = time < lengths
            self._order = torch.where(time < lengths, lengths - 1 - time, time)

    def __call__(self, x: Tensor) -> Tensor:
        """Return `x`, shape (time, records, width), from the last token to the first."""
        if self._lengths is None:
            return x.flip(0)
        return x.gather(0, self._order[:, :, None].expand_as(x))

    def masked(self, x: Tensor) -> Tensor:
        """Return `x`, shape (time, records, width), with zeros where there is no token."""
        return x if self._there is None else x * self._there[:, :, None]

    def last(self, states: Tensor) -> Tensor:
        """Return the states after each sequence's last token, shape (records, width)."""
        if self._lengths is None:
            return states[-1]
        return states[self._lengths - 1, torch.arange(states.shape[1], device=states.device)]


@dataclass(frozen=True)
class _Parameters:
    """One direction of one layer."""

    input: nn.Parameter  # (gates x hidden, in)
    hidden: nn.Parameter  # (gates x hidden, hidden)
    input_bias: nn.Parameter | None
    hidden_bias: nn.Parameter | None

    @classmethod
    def of(cls, module: Recurrent, layer: int, direction: int) -> _Parameters:
        suffix = f"l{layer}" + ("_reverse" if direction else "")

        def named(kind: str) -> nn.Parameter:
            found: nn.Parameter = getattr(module, f"{kind}_{suffix}")
            return found

        biases = (named("bias_ih"), named("bias_hh")) if module.bias else (None, None)
        return cls(named("weight_ih"), named("weight_hh"), *biases)

    def detached(self) -> Weights:
        """Return the values without a graph."""
        biases = (self.input_bias, self.hidden_bias)
        values = [None if each is None else each.detach() for each in biases]
        return Weights(self.input.detach(), self.hidden.detach(), *values)


def _of_layer(module: Recurrent, start: States, layer: int) -> States:
    directions = 1 + module.bidirectional
    return tuple(each[layer * directions : (layer + 1) * directions] for each in start)


def _lstm_booking(tape: Tape, mine: _Parameters) -> Book:
    """Return what books one direction of an LSTM: both weights multiply into the same gates."""
    weights = (tape.sum_of(mine.input), tape.sum_of(mine.hidden))
    biases = (tape.sum_of(mine.input_bias), tape.sum_of(mine.hidden_bias))
    inputs = mine.input.shape[1]

    def book(read: Tensor, of_gates: Tensor) -> None:
        steps, _, width = read.shape
        gates = of_gates.shape[2]
        cheaper = tape.units.most * steps * (width + gates) <= width * gates
        if cheaper and weights[0] is not None and weights[1] is not None:
            _book_jointly(tape, read, of_gates, (weights[0], weights[1], biases))
            return
        sides = (read[..., :inputs], read[..., inputs:])
        _book_apart(tape, sides, (of_gates, of_gates), (weights, biases))

    return book


def _gru_booking(tape: Tape, mine: _Parameters) -> Book:
    """Return what books one direction of a GRU: the reset gate parts the two sides."""
    weights = (tape.sum_of(mine.input), tape.sum_of(mine.hidden))
    biases = (tape.sum_of(mine.input_bias), tape.sum_of(mine.hidden_bias))

    def book(x: Tensor, before: Tensor, of_input: Tensor, of_hidden: Tensor) -> None:
        _book_apart(tape, (x, before), (of_input, of_hidden), (weights, biases))

    return book


_Pair: TypeAlias = tuple[Tensor, Tensor]


def _book_apart(tape: Tape, rows: _Pair, above: _Pair, sums: tuple[Sums, Sums]) -> None:
    """Book a weight and a bias for each side; `sums`: of the weights, and of the biases."""
    for x, gradient, weight, bias in zip(rows, above, *sums, strict=True):
        book_affine(tape, x.transpose(0, 1), gradient.transpose(0, 1), (weight, bias))


def _book_jointly(
    tape: Tape, read: Tensor, of_gates: Tensor, sums: tuple[Tensor, Tensor, Sums]
) -> None:
    """Book both weights and both biases with one pair of Gram matrices and one product."""
    of_input, of_hidden, of_biases = sums
    biases = [bias for bias in of_biases if bias is not None]
    rows = tape.units.together(read.transpose(0, 1))
    above = tape.units.together(of_gates.transpose(0, 1))
    squared = gram_squared_norms(rows, above, ones=len(biases))

    def add(factors: Tensor) -> None:
        by_step = tape.units.spread(factors)[None, :, None]
        found = weighted_product(of_gates, read, by_step)
        of_input.add_(found[:, : of_input.shape[1]])
        of_hidden.add_(found[:, of_input.shape[1] :])
        if biases:
            of_bias = by_step.expand(len(read), -1, 1).flatten() @ of_gates.flatten(0, 1)
            for bias in biases:
                bias.add_(of_bias)

    tape.book(squared, add)
