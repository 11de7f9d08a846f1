"""What a plan costs in privacy, and what its noise leaves of the signal, before anything runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from common.accounting import (
    COARSE_INTERVAL,
    Budget,
    PrivacyEvent,
    epsilon,
    epsilon_at_bounds,
    epsilon_pld,
    epsilon_replace_one,
    round_event,
)
from common.calibration import TargetOutOfReach, last_affordable_round, noise_for, rate_for
from common.plan import Relation, Unit
from common.wire_formats import WireFormat

if TYPE_CHECKING:
    from common.plan import Plan

ROWS = 10  # rounds of a plan whose epsilon is shown
MOST_ROUNDS = 100_000  # what a plan may have


class GatewayCost(BaseModel):
    """What one gateway spends with the values that the plan gives it."""

    model_config = ConfigDict(frozen=True)

    gateway: str
    noise_multiplier: float
    sampling_rate: float
    steps_per_round: int
    epsilon_after_round: dict[int, float]  # add or remove one, by PLD in wide buckets
    epsilon: float  # after all rounds: add or remove one, by PLD
    epsilon_rdp: float
    epsilon_replace_one: float  # by PLD


class Change(BaseModel):
    """What reaches a target alone, all else as it is; None: nothing does."""

    model_config = ConfigDict(frozen=True)

    noise_multiplier: float | None  # the least
    sampling_rate: float | None  # the largest
    rounds: int | None  # the most


class PlanCheck(BaseModel):
    """What there is to know of a plan before it runs."""

    model_config = ConfigDict(frozen=True)

    plan: str
    unit: Unit
    relation: Relation
    delta: float
    rounds: int
    target_epsilon: float
    epsilon_at_bounds: float  # the most that an override can make a gateway spend
    is_within_target: bool
    wire_format: WireFormat  # of updates; costs no privacy
    update_bytes: int  # what each gateway sends in a round
    keep_updates: bool  # whether the orchestrator stores them
    noise_to_signal: float  # of one round's averaged update, see `noise_to_signal`
    gateways: tuple[GatewayCost, ...]
    to_reach_target: Change  # from the plan's bounds


def check_plan(plan: Plan, target_epsilon: float | None = None) -> PlanCheck:
    """Return what `plan` costs, and what would bring it to a target: its own, or another."""
    target = plan.privacy.target_epsilon if target_epsilon is None else target_epsilon
    at_bounds = epsilon_at_bounds(plan)
    return PlanCheck(
        plan=plan.name,
        unit=plan.privacy.unit,
        relation=plan.privacy.relation,
        delta=plan.privacy.delta,
        rounds=plan.rounds.count,
        target_epsilon=target,
        epsilon_at_bounds=at_bounds,
        is_within_target=at_bounds <= target,
        wire_format=plan.wire_format,
        update_bytes=plan.update_form.byte_length,
        keep_updates=plan.keep_updates,
        noise_to_signal=noise_to_signal(plan),
        gateways=tuple(_cost(plan, participant.gateway) for participant in plan.participants),
        to_reach_target=_changes(plan, target),
    )


def noise_to_signal(plan: Plan) -> float:
    r"""Return how large the noise is beside the signal in one round's averaged update.

    .. math:: \sqrt{n / m} \cdot \frac{\sqrt{d \sum_g k_g (w_g \eta_g C_g \sigma_g / B_g)^2}}
                                     {\sum_g k_g w_g \eta_g C_g}

    with d trainable parameters, k local steps of plain SGD at rate eta, clipping norms C (where
    they adapt, the first), noise multipliers sigma of the sums, shares w of the average and
    expected batches B: the expected norm of the noise over the largest norm that clipped gradients
    can have, when all of them point the same way. Of n gateways m are averaged, the plan's
    `rounds.target` or all, here as if they were alike. Real gradients do not point the same way;
    the server's momentum and its average over rounds make the noise smaller again.
    """
    names = [participant.gateway for participant in plan.participants]
    total = sum(plan.weight(name) for name in names)
    variance = signal = 0.0
    for participant in plan.participants:
        how = plan.assigned(participant.gateway)
        step = plan.weight(participant.gateway) / total * how.learning_rate * how.clipping_norm
        expected = plan.expected_units(participant.gateway)
        noise = step * how.sum_noise_multiplier(expected) / expected
        variance += how.local_steps * noise**2
        signal += how.local_steps * step
    fewer = len(names) / (plan.rounds.target or len(names))
    return math.sqrt(fewer * plan.task.layout.size * variance) / signal


def _cost(plan: Plan, gateway: str) -> GatewayCost:
    how, delta, rounds = plan.assigned(gateway), plan.privacy.delta, plan.rounds.count
    per_round = round_event(how)
    spent = epsilon([per_round.times(rounds)], delta)
    shown = sorted({max(1, round(rounds * row / ROWS)) for row in range(1, ROWS + 1)})
    return GatewayCost(
        gateway=gateway,
        noise_multiplier=how.noise_multiplier,
        sampling_rate=how.sampling_rate,
        steps_per_round=how.local_steps,
        epsilon_after_round={
            count: epsilon_pld([per_round.times(count)], delta, interval=COARSE_INTERVAL)
            for count in shown[:-1]
        }
        | {rounds: spent.pld},
        epsilon=spent.pld,
        epsilon_rdp=spent.rdp,
        epsilon_replace_one=epsilon_replace_one([per_round.times(rounds)], delta),
    )


def _changes(plan: Plan, target: float) -> Change:
    noise, rate, steps = plan.loosest()
    delta, every = plan.privacy.delta, steps * plan.rounds.count
    try:
        least: float | None = noise_for(target, sampling_rate=rate, steps=every, delta=delta)
    except TargetOutOfReach:
        least = None
    rounds = last_affordable_round(
        (),
        PrivacyEvent(noise, rate, steps),
        budget=Budget(target, delta),
        delta=delta,
        rounds=MOST_ROUNDS,
    )
    return Change(
        noise_multiplier=least,
        sampling_rate=rate_for(target, noise_multiplier=noise, steps=every, delta=delta),
        rounds=rounds or None,
    )
