"""One step of an LSTM, forward and back, as kernels: one record after another.

Between two products a step is a dozen operations on small arrays: as many calls of torch take
longer than the arithmetic.

Shapes: R records, H hidden values. What changes from step to step comes first among the arguments:
its number t, and what was multiplied for it. All arrays are of float32 and without gaps.
"""

from __future__ import annotations

import math

from private_step.kernels import LN2_HIGH, LN2_LOW, MANTISSA, polynomial
from private_step.lanes import F32, I64, Kernel, Lanes

LARGEST = 87.0  # of an exponent, to either side
PER_LN2 = 1 / math.log(2)
BIAS = 127  # of a float32's exponent
SMALL = 0.625  # up to here tanh is a polynomial
# (exp(x) - 1 - x) / x^2 and (tanh(x) - x) / x^3: Cephes' expf and tanhf (Moshier)
EXP = (
    *(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3),
    *(4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
)
TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)


def exponential(x: Lanes) -> Lanes:
    """Return exp(x), of x between -87 and 87; of others what the nearer of these has."""
    value = x.at_least(-LARGEST).at_most(LARGEST)
    k = (value * PER_LN2 + 0.5).floor()
    r = value - k * LN2_HIGH - k * LN2_LOW
    found = polynomial(r, EXP) * r * r + r + 1.0
    return found * ((k.whole() + BIAS) << MANTISSA).of_bits()


def sigmoid(x: Lanes) -> Lanes:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (exponential(-x) + 1.0)


def hyperbolic_tangent(x: Lanes) -> Lanes:
    """Return tanh(x)."""
    z = x * x
    near = polynomial(z, TANH) * z * x + x
    far = 1.0 - 2.0 / (exponential(x * 2.0) + 1.0)
    return (z < SMALL * SMALL).where(near, far)


def forward_kernel() -> Kernel:
    """Return the kernel of a step forward; a part is a record.

    Arguments: t; what the state before adds to the gates, (R, 4H); the gates of all steps,
    (T, R, 4H), which hold what else goes into them; the cells, (T + 1, R, H), and their tanh,
    (T, R, H); what is read in each step, (T + 1, R, D + H), of which the last H are the hidden
    state before it; that state by itself, (R, H); R; H; D + H.
    """
    kernel = Kernel("forward", [I64, F32, F32, F32, F32, F32, F32, I64, I64, I64])
    step, raw, gates, cells, tanhs, read, state, records, width, wide = kernel.arguments

    def of_record(record: Lanes) -> None:
        here, there = step * records + record, (step + 1) * records + record
        added, own = raw.from_(record * width * 4), gates.from_(here * width * 4)
        hidden = read.from_(there * wide + (wide - width))

        def of_values(place: Lanes, lanes: int) -> None:
            at = [place + width * gate for gate in range(4)]
            sums = [added.load(each, lanes) + own.load(each, lanes) for each in at]
            into, forget, out = (sigmoid(sums[gate]) for gate in (0, 1, 3))
            new = hyperbolic_tangent(sums[2])
            for each, gate in zip(at, (into, forget, new, out), strict=True):
                own.store(each, gate)
            cell = forget * cells.load(here * width + place, lanes) + into * new
            squashed = hyperbolic_tangent(cell)
            cells.store(there * width + place, cell)
            tanhs.store(here * width + place, squashed)
            hidden.store(place, out * squashed)
            state.store(record * width + place, out * squashed)

        kernel.each(width, of_values)

    kernel.each_part(of_record)
    return kernel


def backward_kernel() -> Kernel:
    """Return the kernel of a step back; a part is a record.

    Arguments: t; the gradient of the hidden state from the step after, (R, H); that from above, of
    all steps, (T, R, H); the gates, (T, R, 4H); the cells, (T + 1, R, H), and their tanh,
    (T, R, H); where the gradients of the gates go, (T, R, 4H); the gradient of the cell, (R, H),
    which is carried to the step before; R; H.
    """
    kernel = Kernel("backward", [I64, F32, F32, F32, F32, F32, F32, F32, I64, I64])
    step, found, above, gates, cells, tanhs, of_gates, carried, records, width = kernel.arguments

    def of_record(record: Lanes) -> None:
        here, row = step * records + record, record * width
        own, into_own = gates.from_(here * width * 4), of_gates.from_(here * width * 4)

        def of_values(place: Lanes, lanes: int) -> None:
            at, there = [place + width * gate for gate in range(4)], here * width + place
            into, forget, new, out = (own.load(each, lanes) for each in at)
            squashed = tanhs.load(there, lanes)
            through = (found.load(row + place, lanes) + above.load(there, lanes)) * out
            of_cell = carried.load(row + place, lanes) + through * (1.0 - squashed * squashed)
            gradients = (
                of_cell * new * into * (1.0 - into),
                of_cell * cells.load(there, lanes) * forget * (1.0 - forget),
                of_cell * into * (1.0 - new * new),
                through * squashed * (1.0 - out),
            )
            for each, gradient in zip(at, gradients, strict=True):
                into_own.store(each, gradient)
            carried.store(row + place, of_cell * forget)

        kernel.each(width, of_values)

    kernel.each_part(of_record)
    return kernel
