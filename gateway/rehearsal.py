"""A step on the site's own data as a round takes it: for its time alone.

Nothing is charged for it and nothing of it is kept or leaves: what it computes is thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.errors import FederationError, RequestError
from common.hyperparameters import Hyperparameters
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.plan import Unit
from common.randomness import system_secret
from common.update_form import UpdateForm
from common.wire_formats import WireFormat
from gateway.charges import ChargedRound, DataSetBinding, RoundCharge, RunTerms
from gateway.gateway import gradients_of
from gateway.local_round import BegunRun, train
from gateway.packing import checked
from gateway.sampling import PoissonSampler
from gateway.training import flat_parameters
from gateway.workshop import FAILURES
from tasks.parameters import layout_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.gateway import Site

NOTHING = WeightsId("0" * 64)
# where no plan says more: a batch of about 64, and noise as usual
ORDINARY = Hyperparameters(
    learning_rate=0.1, clipping_norm=1.0, noise_multiplier=1.0, sampling_rate=1.0, local_steps=1
)
BATCH = 64
LONGEST_REASON = 200  # of what somebody else's code says


@dataclass(frozen=True)
class Rehearsal:
    """What to expect of a round at this site."""

    seconds_per_step: float
    steps_per_round: int
    units: int
    sampling_rate: float

    @property
    def seconds_per_round(self) -> float:
        """How long the private steps of one round take."""
        return self.seconds_per_step * self.steps_per_round


class StepFailed(RequestError):
    """A step of training ends in an error of the task or of torch."""

    def __init__(self, error: Exception) -> None:
        said = " ".join(str(error).split())[:LONGEST_REASON]
        super().__init__(
            f"a step on these data fails ({type(error).__name__}: {said}): see to the task's "
            "model and loss, or to `gradients` and `micro_batch` in the settings"
        )


def rehearse(
    make: Callable[[], Site], unit: Unit, how: Hyperparameters | None, now: Callable[[], float]
) -> Rehearsal:
    """Take two steps and time the second.

    Args:
        make: returns the model and this site's data.
        unit: whose gradients are clipped.
        how: the values of a plan; None: a batch of about BATCH units, one step in a round.
        now: reads a monotonic clock, in seconds.

    Raises:
        FederationError: what a round would end with.
        StepFailed: the task or torch raised something.
    """
    try:
        return _rehearsed(make(), unit, how, now)
    except FederationError:
        raise
    except FAILURES as error:
        raise StepFailed(error) from error


def _rehearsed(
    site: Site, unit: Unit, how: Hyperparameters | None, now: Callable[[], float]
) -> Rehearsal:
    units = checked(site.dataset.units(unit), len(site.dataset))
    if how is None:
        how = ORDINARY.model_copy(update={"sampling_rate": min(1.0, BATCH / len(units))})
    one = how.model_copy(update={"local_steps": 1})
    nobody = RunTerms(
        run=RunId("rehearsal"),
        gateway=GatewayId("rehearsal"),
        plan=PlanId("0" * 64),
        effective=one,
        data=DataSetBinding("rehearsal", "0" * 64),
        delta=0.0,
        unit=unit,
    )
    run = BegunRun(
        nobody,
        rounds=1,
        expected_batch_size=len(units) * one.sampling_rate,
        sampler=PoissonSampler(one.sampling_rate, len(units)),
        units=units,
        form=UpdateForm(layout_of(site.model), WireFormat.FLOAT32),
        initial=NOTHING,
    )
    event = run.sampler.event(noise_multiplier=one.noise_multiplier, steps=1)
    charge = RoundCharge(nobody, 1, NOTHING, event)
    charged = ChargedRound(charge, system_secret(), one.clipping_norm, None, fresh=True)
    gradients, start = gradients_of(site), flat_parameters(site.model)
    train(run, gradients, start, charged)  # kernels are made ready
    begun = now()
    train(run, gradients, start, replace(charged, secret=system_secret()))
    return Rehearsal(now() - begun, how.local_steps, len(units), how.sampling_rate)
