"""What the ledger books, as rows of its tables and back."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from common.accounting import Mechanism, PrivacyEvent
from common.hyperparameters import Hyperparameters
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.plan import Relation, Unit
from gateway.charges import BookedCharge, ChargeState, DataSetBinding, RoundCharge, RunTerms

# of a charge's record, in a version of it that never changes: the chain is made of it
TEXTS = (
    *("gateway", "run", "parent", "plan", "effective", "mechanism"),
    *("data_set", "data_digest", "unit", "relation"),
)
NUMBERS = ("noise_multiplier", "sampling_rate", "clipping_norm", "delta")


def terms_to_row(terms: RunTerms) -> dict[str, Any]:
    """Return a run's terms as a row of RUNS."""
    return {
        "run": terms.run,
        "gateway": terms.gateway,
        "plan": terms.plan,
        "effective": terms.effective.to_json(),
        "data_set": terms.data.name,
        "data_digest": terms.data.digest,
        "delta": terms.delta,
        "unit": terms.unit,
        "relation": terms.relation,
    }


def terms_from_row(row: Row[Any]) -> RunTerms:
    """Return the terms that `terms_to_row` was given."""
    return RunTerms(
        run=RunId(row.run),
        gateway=GatewayId(row.gateway),
        plan=PlanId(row.plan),
        effective=Hyperparameters.model_validate_json(row.effective),
        data=DataSetBinding(row.data_set, row.data_digest),
        delta=row.delta,
        unit=Unit(row.unit),
        relation=Relation(row.relation),
    )


def charge_to_row(charge: RoundCharge, clipping_norm: float) -> dict[str, Any]:
    """Return a charge as a row of CHARGES, but for its secret.

    Args:
        charge: the round's.
        clipping_norm: C that it begins with, in gradient units.
    """
    return {
        "run": charge.terms.run,
        "round": charge.round,
        "parent": charge.parent,
        "mechanism": charge.event.mechanism,
        "noise_multiplier": charge.event.noise_multiplier,
        "sampling_rate": charge.event.sampling_rate,
        "steps": charge.event.steps,
        "clipping_norm": clipping_norm,
        "state": ChargeState.CHARGED,
    }


def facts_of_charge(row: Any, mark: str, *, insecure: bool) -> dict[str, Any]:
    """Return a charge as its record holds it, from its row of CHARGES joined with its run's.

    Args:
        row: the columns as attributes; never its secret, nor what changes afterwards.
        mark: tells this charge from one of the same round in another image of the ledger.
        insecure: whether its noise comes from a seed.
    """
    return {
        **{name: str(getattr(row, name)) for name in TEXTS},
        **{name: float(getattr(row, name)) for name in NUMBERS},
        "round": int(row.round),
        "steps": int(row.steps),
        "mark": mark,
        "insecure_deterministic": insecure,
    }


def event_from_row(row: Row[Any]) -> PrivacyEvent:
    """Return what a booked round spends."""
    mechanism = Mechanism(row.mechanism)
    return PrivacyEvent(row.noise_multiplier, row.sampling_rate, row.steps, mechanism)


def booked_from_row(row: Row[Any]) -> BookedCharge:
    """Return a charge from its row of CHARGES joined with its run's."""
    return BookedCharge(
        sequence=row.sequence,
        terms=terms_from_row(row),
        round=row.round,
        parent=WeightsId(row.parent),
        event=event_from_row(row),
        clipping_norm=row.clipping_norm,
        state=ChargeState(row.state),
        update=row.update_digest,
    )
