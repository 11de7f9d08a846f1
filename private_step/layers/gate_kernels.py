"""One step of an LSTM, forward and back, as kernels: one record after another.

Between two products a step is a dozen operations on small arrays: as many calls of torch take
longer than the arithmetic.

Shapes: R records, H hidden values. Addresses that change from step to step come first among the
arguments; all arrays are of float32, in rows without gaps but for those of which a width is given.
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

    Arguments: of this step what the state before adds to the gates, (R, 4H); the gates, (R, 4H),
    which hold what else goes into them; the cells before and after and their tanh, (R, H); where
    the hidden state goes, in rows of a width of their own; that state by itself, (R, H); H; that
    width.
    """
    kernel = Kernel("forward", [F32] * 7 + [I64, I64])
    raw, gates, before, cells, tanhs, hidden, state, width, apart = kernel.arguments

    def of_record(record: Lanes) -> None:
        row, four = record * width, record * width * 4

        def of_values(place: Lanes, lanes: int) -> None:
            at = [place + four + width * gate for gate in range(4)]
            sums = [raw.load(each, lanes) + gates.load(each, lanes) for each in at]
            into, forget, out = (sigmoid(sums[gate]) for gate in (0, 1, 3))
            new = hyperbolic_tangent(sums[2])
            for each, gate in zip(at, (into, forget, new, out), strict=True):
                gates.store(each, gate)
            here = row + place
            cell = forget * before.load(here, lanes) + into * new
            squashed = hyperbolic_tangent(cell)
            cells.store(here, cell)
            tanhs.store(here, squashed)
            hidden.store(record * apart + place, out * squashed)
            state.store(here, out * squashed)

        kernel.each(width, of_values)

    kernel.each_part(of_record)
    return kernel


def backward_kernel() -> Kernel:
    """Return the kernel of a step back; a part is a record.

    Arguments: the gradient of the hidden state from the step after, (R, H), and from above,
    (R, H); the gates of this step, (R, 4H), the cells before it and the tanh of those after it,
    (R, H); where the gradients of the gates go, (R, 4H); the gradient of the cell, (R, H), which is
    carried to the step before; H.
    """
    kernel = Kernel("backward", [F32] * 7 + [I64])
    found, above, gates, before, tanhs, of_gates, carried, width = kernel.arguments

    def of_record(record: Lanes) -> None:
        row, four = record * width, record * width * 4

        def of_values(place: Lanes, lanes: int) -> None:
            at = [place + four + width * gate for gate in range(4)]
            into, forget, new, out = (gates.load(each, lanes) for each in at)
            here = row + place
            squashed = tanhs.load(here, lanes)
            through = (found.load(here, lanes) + above.load(here, lanes)) * out
            of_cell = carried.load(here, lanes) + through * (1.0 - squashed * squashed)
            gradients = (
                of_cell * new * into * (1.0 - into),
                of_cell * before.load(here, lanes) * forget * (1.0 - forget),
                of_cell * into * (1.0 - new * new),
                through * squashed * (1.0 - out),
            )
            for each, gradient in zip(at, gradients, strict=True):
                of_gates.store(each, gradient)
            carried.store(here, of_cell * forget)

        kernel.each(width, of_values)

    kernel.each_part(of_record)
    return kernel
