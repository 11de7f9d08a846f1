"""What this gateway accepts: its own rules over a plan, decided before any data are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from pydantic import BaseModel, Field

from common.accounting import (
    Budget,
    Epsilon,
    PrivacyEvent,
    epsilon,
    epsilon_at_bounds,
    is_within,
    round_event,
    rounded_up,
)
from common.calibration import last_affordable_round
from common.errors import RequestError
from common.hyperparameters import (
    FROZEN,
    Hyperparameters,
    Overrides,
    Positive,
    Violation,
    violations,
)
from common.plan import Plan
from common.protocol import RefusalReason

OWN_RULE = "this gateway's policy"


class Policy(BaseModel):
    """The bounds that a site's operator sets, whatever a plan asks for."""

    model_config = FROZEN

    epsilon_budget: Positive  # for everything ever trained on a data set, at delta_ceiling
    delta_ceiling: Annotated[float, Field(gt=0, lt=1)] = 1e-5  # most that a plan may state
    noise_multiplier_floor: Positive | None = None  # least that is trained with; None: no floor
    allow_kept_updates: bool = False  # on the orchestrator's disk, beyond the round

    @property
    def budget(self) -> Budget:
        """The budget as the accountant takes it."""
        return Budget(self.epsilon_budget, self.delta_ceiling)


@dataclass(frozen=True)
class Accepted:
    """The plan may run."""

    effective: Hyperparameters
    projected: Epsilon | None  # with everything charged before; None where noise is not secret


@dataclass(frozen=True)
class Refused:
    """The plan may not run."""

    reason: RefusalReason
    field: str  # of the plan; it and the reason are all that the orchestrator learns
    sentence: str  # field, value, bound, whose rule: for this gateway's log


Verdict: TypeAlias = Accepted | Refused


def review(
    plan: Plan,
    gateway: str,
    overrides: Overrides,
    policy: Policy,
    spent: Sequence[PrivacyEvent],
) -> Verdict:
    """Decide whether this gateway takes part in `plan`.

    Args:
        plan: what the orchestrator offers.
        gateway: this gateway's name.
        overrides: its own values, laid over what the plan gives it.
        policy: its own bounds.
        spent: what other runs have charged on the same data.

    Returns:
        `Accepted` with the values to train with and the epsilon that all rounds will have cost,
        or `Refused` for the first rule that is broken.
    """
    if plan.participant(gateway) is None:
        sentence = f"participants: the plan {plan.name!r} does not invite {gateway!r}"
        return Refused(RefusalReason.NOT_INVITED, "participants", sentence)
    effective = overrides.over(plan.assigned(gateway))
    refused = (
        _outside_bounds(plan, gateway, effective)
        or _not_adaptive(plan, gateway, effective)
        or _kept(plan, policy)
        or _below_floor(effective, policy)
        or _above_delta(plan, policy)
        or _above_target(plan)
        or _above_budget(plan, effective, policy, spent)
    )
    if refused is not None:
        return refused
    everything = (*spent, round_event(effective).times(plan.rounds.count))
    return Accepted(effective, epsilon(everything, plan.privacy.delta))


def _outside_bounds(plan: Plan, gateway: str, effective: Hyperparameters) -> Refused | None:
    broken = violations(effective, bounds=plan.bounds, assigned=plan.assigned(gateway))
    return _refused(RefusalReason.OUTSIDE_BOUNDS, *broken) if broken else None


def _not_adaptive(plan: Plan, gateway: str, effective: Hyperparameters) -> Refused | None:
    try:
        effective.check_adaptive(plan.expected_units(gateway, effective))
    except RequestError as error:
        return Refused(RefusalReason.OUTSIDE_BOUNDS, error.field or "", str(error))
    return None


def _kept(plan: Plan, policy: Policy) -> Refused | None:
    if not plan.keep_updates or policy.allow_kept_updates:
        return None
    need = "false, as policy.allow_kept_updates is"
    return _refused(RefusalReason.KEPT_UPDATES, Violation("keep_updates", "true", need, OWN_RULE))


def _below_floor(effective: Hyperparameters, policy: Policy) -> Refused | None:
    floor, value = policy.noise_multiplier_floor, effective.noise_multiplier
    if floor is None or value >= floor:
        return None
    broken = Violation("noise_multiplier", str(value), f"at least {floor}", OWN_RULE)
    mend = "ask the operator for more noise, or lower policy.noise_multiplier_floor"
    return _refused(RefusalReason.NOISE_FLOOR, broken, mend=mend)


def _above_delta(plan: Plan, policy: Policy) -> Refused | None:
    delta, ceiling = plan.privacy.delta, policy.delta_ceiling
    if delta <= ceiling:
        return None
    broken = Violation("privacy.delta", str(delta), f"at most {ceiling}", OWN_RULE)
    mend = "ask the operator for a smaller delta, or raise policy.delta_ceiling"
    return _refused(RefusalReason.DELTA, broken, mend=mend)


def _above_target(plan: Plan) -> Refused | None:
    spends = epsilon_at_bounds(plan)
    if spends <= plan.privacy.target_epsilon:
        return None
    need = f"at least {rounded_up(spends)}, what its bounds let a gateway spend"
    broken = Violation(
        "privacy.target_epsilon", str(plan.privacy.target_epsilon), need, "the plan's own promise"
    )
    return _refused(RefusalReason.TARGET_EPSILON, broken)


def _above_budget(
    plan: Plan, effective: Hyperparameters, policy: Policy, spent: Sequence[PrivacyEvent]
) -> Refused | None:
    per_round, rounds, delta = round_event(effective), plan.rounds.count, plan.privacy.delta
    planned = per_round.times(rounds)
    if is_within(policy.budget, spent=spent, planned=planned, delta=delta):
        return None
    last = last_affordable_round(spent, per_round, budget=policy.budget, delta=delta, rounds=rounds)
    total = epsilon((*spent, planned), delta)
    value = (
        f"{rounds} rounds, for an epsilon of {rounded_up(total.pld)} by PLD and "
        f"{rounded_up(total.rdp)} by RDP ({total.relation}, delta {delta}) in all on these data"
    )
    allowed = f"round {last} would be the last one allowed" if last else "no round is allowed"
    bound = f"an epsilon of at most {policy.epsilon_budget}; {allowed}"
    broken = Violation("rounds.count", value, bound, OWN_RULE)
    mend = "ask the operator for more noise or fewer rounds, or raise policy.epsilon_budget"
    return _refused(RefusalReason.EPSILON_BUDGET, broken, mend=mend)


def _refused(reason: RefusalReason, *broken: Violation, mend: str = "") -> Refused:
    sentences = "; ".join(violation.sentence for violation in broken)
    return Refused(reason, broken[0].field, f"{sentences}: {mend}" if mend else sentences)
