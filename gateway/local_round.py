"""One round at this gateway: private steps down from the global weights.

Where clipping adapts, each step's clipping norm follows from what the step before has released. The
round begins with the norm that was booked with its charge and hands on the one that it ends with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from common.hyperparameters import Hyperparameters
from common.ids import WeightsId
from common.randomness import RandomStream
from common.update_form import UpdateForm
from gateway.charges import ChargedRound, RunTerms
from gateway.dp_sgd import Released, apply_dp
from gateway.packing import UnitRows
from gateway.sampling import PoissonSampler
from gateway.training import Gradients, LocalSteps


@dataclass(frozen=True)
class BegunRun:
    """A run that was accepted: its terms and what follows from them."""

    terms: RunTerms
    rounds: int
    expected_batch_size: float  # declared units times rate: public, whatever the data are
    sampler: PoissonSampler  # of the units
    units: Sequence[UnitRows]  # the rows of each
    form: UpdateForm  # of its updates
    initial: WeightsId  # that its first round begins with, as the plan has it

    @property
    def effective(self) -> Hyperparameters:
        """What it is trained with."""
        return self.terms.effective

    @property
    def count_noise(self) -> float | None:
        """Standard deviation of the noise on a step's count, in units; None: there is no count."""
        adaptive = self.effective.adaptive_clipping
        return None if adaptive is None else adaptive.count_noise_for(self.expected_batch_size)

    def draw(self, stream: RandomStream) -> list[UnitRows]:
        """Return the units of one Poisson batch, each with all its rows."""
        return [self.units[place] for place in self.sampler.draw(stream)]

    def next_norm(self, clipping_norm: float, released: Released) -> float:
        """Return the clipping norm of the step after one at `clipping_norm`, in gradient units."""
        adaptive = self.effective.adaptive_clipping
        if adaptive is None or released.noisy_fraction is None:
            return clipping_norm
        return adaptive.next_norm(clipping_norm, noisy_fraction=released.noisy_fraction)


@dataclass(frozen=True)
class TrainedRound:
    """What a round's steps came to: post-processing of what they released."""

    difference: Tensor  # from the global weights, shape (parameters,), float32
    next_norm: float | None  # clipping norm of the run's next round; None: it is fixed


def train(
    run: BegunRun, gradients: Gradients, start: Tensor, charged: ChargedRound
) -> TrainedRound:
    """Take a charged round's private steps; the same again from the same secret.

    Args:
        run: what the round is of.
        gradients: clips this gateway's units.
        start: the global weights, shape (parameters,), float32; left as they are.
        charged: the round, paid for: its randomness and the clipping norm it begins with.
    """
    how, sampling, noise = run.effective, charged.sampling, charged.noise
    local, norm = LocalSteps(start, how), charged.clipping_norm
    for _ in range(how.local_steps):
        units = run.draw(sampling)
        released = apply_dp(
            partial(gradients.clipped_sum, local.parameters, units, run.expected_batch_size),
            noise_multiplier=how.noise_multiplier,
            clipping_norm=norm,
            divisor=run.expected_batch_size,
            generator=noise,
            count_noise=run.count_noise,
        )
        local.step(released.mean)
        norm = run.next_norm(norm, released)
    return TrainedRound(local.difference, None if how.adaptive_clipping is None else norm)
