"""One step of an LSTM, forward and back, as loops that Numba compiles at their first use.

Between two products a step is a dozen operations on small arrays: as many calls of torch take
longer than the arithmetic. Each loop is so plain that LLVM makes vector instructions of it.

Shapes: T steps, R records, D inputs, H hidden values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from private_step.compiling import Loop, compiled_with

Floats: TypeAlias = NDArray[np.float32]

F = np.float32
I32 = np.int32
ONE, TWO, HALF = F(1.0), F(2.0), F(0.5)
LARGEST = F(87.0)  # of an exponent, to either side
PER_LN2 = F(1.44269504088896341)
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.12194440e-4)
BIAS, MANTISSA = I32(127), I32(23)
# (exp(x) - 1 - x) / x^2 and (tanh(x) - x) / x^3: Cephes' expf and tanhf (Moshier)
E0, E1, E2 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3)
E3, E4, E5 = F(4.1665795894e-2), F(1.6666665459e-1), F(5.0000001201e-1)
T0, T1, T2 = F(-5.70498872745e-3), F(2.06390887954e-2), F(-5.37397155531e-2)
T3, T4 = F(1.33314422036e-1), F(-3.33332819422e-1)
SMALL = F(0.625)  # up to here tanh is a polynomial


def exponentials(x: Floats, powers: NDArray[np.int32], out: Floats) -> None:
    """Write exp(x) to `out`; `powers` is room to work in; all are of one length."""
    as_floats = powers.view(np.float32)
    for j in range(x.shape[0]):
        value = min(max(x[j], -LARGEST), LARGEST)
        k = np.floor(value * PER_LN2 + HALF)
        r = value - k * LN2_HIGH - k * LN2_LOW
        y = ((((E0 * r + E1) * r + E2) * r + E3) * r + E4) * r + E5
        out[j] = y * r * r + r + ONE
        powers[j] = (I32(k) + BIAS) << MANTISSA
    for j in range(x.shape[0]):
        out[j] *= as_floats[j]


def tanhs_of(x: Floats, exps: Floats, out: Floats) -> None:
    """Write tanh(x) to `out`, given x and exp(2 x)."""
    for j in range(x.shape[0]):
        z = x[j] * x[j]
        near = ((((T0 * z + T1) * z + T2) * z + T3) * z + T4) * z * x[j] + x[j]
        far = ONE - TWO / (ONE + exps[j])
        out[j] = near if abs(x[j]) < SMALL else far


def forward_step(
    t: int,
    raw: Floats,
    states: tuple[Floats, Floats, Floats, Floats, Floats],
    rooms: tuple[Floats, Floats, NDArray[np.int32]],
) -> None:
    """Write the gates, the cell, its tanh and the hidden state of step t.

    Args:
        t: the step.
        raw: what the state before adds to the gates, (R, 4H); it is used up.
        states: gates (T, R, 4H), where those of step t hold what else goes into them; cells
            (T + 1, R, H), their tanh (T, R, H), what is read in each step, (T + 1, R, D + H), of
            which the last H are the hidden state before it, and that state by itself, (R, H).
        rooms: two of 4H and one of 4H whole numbers to work in.
    """
    gates, cells, tanhs, read, state = states
    exps, inner, powers = rooms
    width = cells.shape[2]
    begin = read.shape[2] - width
    for r in range(raw.shape[0]):
        row, gate, cell, tanh = raw[r], gates[t, r], cells[t + 1, r], tanhs[t, r]
        before, hidden, same = cells[t, r], read[t + 1, r, begin:], state[r]
        for j in range(4 * width):
            row[j] = -row[j] - gate[j]
        for j in range(2 * width, 3 * width):
            inner[j] = -row[j]
            row[j] = TWO * inner[j]
        exponentials(row, powers, exps)
        for j in range(4 * width):
            gate[j] = ONE / (ONE + exps[j])
        new = slice(2 * width, 3 * width)
        tanhs_of(inner[new], exps[new], gate[new])
        for j in range(width):
            cell[j] = gate[width + j] * before[j] + gate[j] * gate[2 * width + j]
            inner[j] = TWO * cell[j]
        exponentials(inner[:width], powers[:width], exps[:width])
        tanhs_of(cell, exps[:width], tanh)
        for j in range(width):
            hidden[j] = gate[3 * width + j] * tanh[j]
            same[j] = hidden[j]


def backward_step(
    t: int,
    found: Floats,
    above: tuple[Floats, Floats],
    states: tuple[Floats, Floats, Floats],
    of_gates: Floats,
) -> None:
    """Write the gradients of step t's gates; carry that of its cell to the step before.

    Args:
        t: the step.
        found: the gradient of what step t + 1 read, (R, at least H): its last H count.
        above: the gradients of the hidden states from above, (T, R, H), and of the cell from step
            t + 1, (R, H), which is changed in place.
        states: gates (T, R, 4H), cells (T + 1, R, H), their tanh (T, R, H).
        of_gates: where the gradients go, (T, R, 4H).
    """
    from_above, carried = above
    gates, cells, tanhs = states
    width = carried.shape[1]
    begin = found.shape[1] - width
    for r in range(found.shape[0]):
        gate, cell, tanh, before = gates[t, r], carried[r], tanhs[t, r], cells[t, r]
        here, upper, into = found[r, begin:], from_above[t, r], of_gates[t, r]
        for j in range(width):
            entered, forgot, new = gate[j], gate[width + j], gate[2 * width + j]
            out, squashed = gate[3 * width + j], tanh[j]
            hidden = here[j] + upper[j]
            through = hidden * out
            of_cell = cell[j] + through * (ONE - squashed * squashed)
            into[j] = of_cell * new * entered * (ONE - entered)
            into[width + j] = of_cell * before[j] * forgot * (ONE - forgot)
            into[2 * width + j] = of_cell * entered * (ONE - new * new)
            into[3 * width + j] = through * squashed * (ONE - out)
            cell[j] = of_cell * forgot


@dataclass(frozen=True)
class GateKernels:
    """The two steps, compiled."""

    forward: Loop
    backward: Loop


@cache
def compiled() -> GateKernels | None:
    """Compile the steps, once in a process; None where Numba is not installed."""
    forward = compiled_with(forward_step, exponentials, tanhs_of)
    backward = compiled_with(backward_step)
    return None if forward is None or backward is None else GateKernels(forward, backward)
