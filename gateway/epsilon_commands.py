"""`fedgate-gateway epsilon` and `noise`: what steps cost, and which noise keeps to a target."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from common.console import OUT, Format, FormatOption, emit_json, working
from common.plan import Unit
from gateway.options import DeltaOption

RateOption = Annotated[float, typer.Option(help="Probability that a unit is in a step's batch.")]
StepsOption = Annotated[int, typer.Option(help="Steps in all: rounds times local steps.")]
UnitOption = Annotated[
    Unit, typer.Option(help="What is sampled, clipped and protected: named, not reckoned with.")
]


def epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="Noise over the clipping norm.")],
    sampling_rate: RateOption,
    steps: StepsOption,
    delta: DeltaOption = 1e-5,
    unit: UnitOption = Unit.EXAMPLE,
    output: FormatOption = Format.TEXT,
) -> None:
    """Say what steps of the mechanism cost; sampling rate 1 is the plain Gaussian mechanism."""
    from common.accounting import PrivacyEvent, rounded_up
    from common.accounting import epsilon as epsilon_spent

    spent = epsilon_spent([PrivacyEvent(noise_multiplier, sampling_rate, steps)], delta)
    if output is Format.JSON:
        emit_json({**asdict(spent), "unit": unit})
        return
    OUT.print(f"epsilon {rounded_up(spent.pld, 8)} (PLD), {rounded_up(spent.rdp, 8)} (RDP)")
    OUT.print(f"at delta {delta}, {spent.relation} neighbours, unit: {unit}")


def noise(
    target_epsilon: Annotated[float, typer.Option(help="Most that may be spent, by PLD.")],
    sampling_rate: RateOption,
    steps: StepsOption,
    delta: DeltaOption = 1e-5,
    unit: UnitOption = Unit.EXAMPLE,
    output: FormatOption = Format.TEXT,
) -> None:
    """Find the least noise multiplier, to four decimals, that keeps to a target epsilon."""
    from common.accounting import PrivacyEvent, rounded_up
    from common.accounting import epsilon as epsilon_spent
    from common.calibration import noise_for

    with working("looking for the least noise"):
        found = noise_for(target_epsilon, sampling_rate=sampling_rate, steps=steps, delta=delta)
    spent = epsilon_spent([PrivacyEvent(found, sampling_rate, steps)], delta)
    if output is Format.JSON:
        emit_json({"noise_multiplier": found, **asdict(spent), "unit": unit})
        return
    OUT.print(f"noise multiplier {found}: epsilon {rounded_up(spent.pld, 8)} (PLD)")
    OUT.print(f"at delta {delta}, {spent.relation} neighbours, unit: {unit}")
