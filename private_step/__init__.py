"""Private training of a plain torch module, at nearly the speed of training without privacy."""

from __future__ import annotations

import private_step.layers  # noqa: F401 (registers the rules)
from private_step.clipped import Batch, ClippedGradients, Loss
from private_step.rules import by_vmap, per_record_rule, rule_for
from private_step.step import PrivacyOfStep, PrivateStep

__all__ = [
    "Batch",
    "ClippedGradients",
    "Loss",
    "PrivacyOfStep",
    "PrivateStep",
    "by_vmap",
    "per_record_rule",
    "rule_for",
]
