"""What a plan costs in privacy, and what its noise leaves of the signal, before anything runs."""

from __future__ import annotations

import math
from statistics import median
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
from common.bad_updates import NormMode, Reputation, UpdateNorm
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
    update_norm: UpdateNorm  # what their norms may be
    reputation: Reputation | None  # None: no scores are kept
    expected_clipped: tuple[str, ...]  # gateways whose noise alone is above the bound to expect
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
        update_norm=plan.update_norm,
        reputation=plan.reputation,
        expected_clipped=expected_clipped(plan),
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
    for name in names:
        how, share = plan.assigned(name), plan.weight(name) / total
        variance += (share * noise_norm(plan, name)) ** 2
        signal += how.local_steps * share * how.learning_rate * how.clipping_norm
    fewer = len(names) / (plan.rounds.target or len(names))
    return math.sqrt(fewer * variance) / signal


def noise_norm(plan: Plan, gateway: str) -> float:
    r"""Return :math:`\sqrt{k d} \cdot \eta C \sigma / B`: what one update's noise comes to.

    The letters are those of `noise_to_signal`: plain SGD of k local steps.
    """
    how, expected = plan.assigned(gateway), plan.expected_units(gateway)
    noise = how.learning_rate * how.clipping_norm * how.sum_noise_multiplier(expected) / expected
    return math.sqrt(how.local_steps * plan.task.layout.size) * noise


def expected_clipped(plan: Plan) -> tuple[str, ...]:
    """Return the gateways whose updates will be scaled down in each round, for their noise alone.

    Noise is the wider the fewer units a batch has: a small site beside large ones stands out.
    """
    norms = {each.gateway: noise_norm(plan, each.gateway) for each in plan.participants}
    how = plan.update_norm
    bound = how.factor * median(norms.values()) if how.mode is NormMode.MEDIAN else how.bound
    return tuple(name for name, norm in norms.items() if bound is not None and norm > bound)


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
