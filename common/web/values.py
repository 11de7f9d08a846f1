"""The hyperparameters in force for a gateway, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.hyperparameters import Overrides

if TYPE_CHECKING:
    from common.hyperparameters import Hyperparameters
    from common.plan import Plan

VALUE_NAMES = tuple(Overrides.model_fields)


@dataclass(frozen=True)
class Value:
    """A hyperparameter in force, and where it came from: default, profile or override."""

    text: str
    source: str


def values_in_force(plan: Plan, gateway: str, effective: Hyperparameters) -> tuple[Value, ...]:
    """Return what a gateway trains with, in the order of `VALUE_NAMES`."""
    return tuple(_value(plan, gateway, name, effective) for name in VALUE_NAMES)


def _value(plan: Plan, gateway: str, name: str, effective: Hyperparameters) -> Value:
    value, given = getattr(effective, name), getattr(plan.assigned(gateway), name)
    profile = plan.profiles.get(gateway)
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    if value != given:
        return Value(text, "override")
    is_profiles = profile is not None and getattr(profile, name) is not None
    return Value(text, "profile" if is_profiles else "default")
