"""The card that says what a model is: made from the evidence, so that it can be made again.

The facts are the plan's and the lineage's; epsilon is worked out here, where an accountant is.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cli.evidence import check
from common.accounting import PrivacyEvent, epsilon, round_event, rounded_up
from common.lineage import LineageBroken
from common.plan import Plan, Relation, ServerOptimizer, Unit
from common.protocol import Effective
from common.weights import Layout
from common.wire import plan_from_bytes, plan_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.evidence import Checked, Evidence
    from common.lineage import RoundStatement
    from common.protocol import GatewayStatus, RunStatus


class GatewayCard(BaseModel):
    """What one gateway put in, and what it spent."""

    model_config = ConfigDict(frozen=True)

    gateway: str
    declared_units: int
    rounds_charged: int  # at most: rounds that it was told to train
    rounds_counted: int
    epsilon: float | None  # PLD; None where its noise was seeded
    epsilon_rdp: float | None


class LineageCard(BaseModel):
    """Whose word the card is made from."""

    model_config = ConfigDict(frozen=True)

    public_key: str  # Ed25519: compare it with the orchestrator's owner
    federation: str
    statements: int
    last: str  # SHA-256 of the last statement, which names the one before it
    initial_weights: str
    software: str
    strategy: str
    server: ServerOptimizer
    updates_kept: bool


class ModelCard(BaseModel):
    """What a model is, and what is promised of it."""

    model_config = ConfigDict(frozen=True)

    run: str
    task: str
    task_digest: str
    labels: tuple[str, ...]
    layout: Layout
    rounds: int
    sha256: str
    blake3: str
    private: bool  # False: some noise was seeded, nothing here is private
    statement: str
    epsilon: float | None  # the largest over the gateways, PLD
    delta: float
    relation: Relation
    unit: Unit
    gateways: tuple[GatewayCard, ...]
    scores: dict[str, float]  # F1 of the published model by split, fractions: not proven
    plan_digest: str = ""  # names the plan; empty: an older card
    plan_signed_by: str | None = None  # Ed25519 public key of who ordered it; None: nobody signed
    plan_signature: str | None = None
    lineage: LineageCard | None = None  # None: an older version began the run, and signed none


def charged_to(status: GatewayStatus) -> tuple[PrivacyEvent, ...] | None:
    """Return what a gateway may have run; None if its noise was seeded.

    Every round that it was told to train counts, whether or not its update did.
    """
    if not isinstance(status.answer, Effective):
        return ()
    return _charged(status.answer, status.rounds_invited)


def charged_by(statement: RoundStatement) -> dict[str, tuple[PrivacyEvent, ...] | None]:
    """Return by gateway what it may have run by the end of a round, as the statement says."""
    return {
        gateway: _charged(alike.effective, rounds)
        for alike in statement.trained
        for gateway, rounds in alike.rounds.items()
    }


def _charged(effective: Effective, rounds: int) -> tuple[PrivacyEvent, ...] | None:
    if not rounds:
        return ()
    if effective.insecure_deterministic:
        return None
    return (round_event(effective.hyperparameters).times(rounds),)


def card_of(evidence: Evidence, scores: Mapping[str, float], key: str | None = None) -> ModelCard:
    """Return the card of a completed run's model.

    Args:
        evidence: what it is made from.
        scores: F1 by split.
        key: who must have signed the lineage; None: whoever signed the first statement.

    Raises:
        PlanSignatureRefused: whoever is said to have ordered the run did not order this.
        LineageBroken: the lineage is not whole, or does not agree with the plan.
    """
    checked = check(evidence, key)
    plan, model, rounds = checked.plan, checked.lineage.model, checked.lineage.rounds
    if model is None:
        raise LineageBroken("the statement of the model", "it is missing")
    charged = charged_by(rounds[-1])
    told = {name: count for alike in rounds[-1].trained for name, count in alike.rounds.items()}
    counted = Counter(update.gateway for each in rounds for update in each.updates)
    gateways = tuple(
        _gateway_card(name, plan, charged.get(name, ()), (told.get(name, 0), counted[name]))
        for name in sorted(plan.gateways)
    )
    ordered = evidence.plan_signature
    return ModelCard(
        run=checked.run,
        rounds=model.rounds,
        sha256=model.model_sha256,
        blake3=model.model,
        scores=dict(scores),
        plan_digest=checked.plan_digest,
        plan_signed_by=checked.plan_signed_by,
        plan_signature=None if ordered is None else ordered.signature,
        lineage=_lineage_card(checked, evidence.signed[-1].digest),
        **_promised(plan, gateways, private=None not in charged.values()),
    )


def card_without_lineage(status: RunStatus, plan: bytes) -> ModelCard:
    """Return the card of a run that an older version began: its orchestrator's word, no more."""
    agreed = plan_from_bytes(plan)
    gateways = tuple(
        _gateway_card(
            each.gateway, agreed, charged_to(each), (each.rounds_invited, each.rounds_counted)
        )
        for each in status.gateways
    )
    return ModelCard(
        run=status.run_id,
        rounds=status.published_round,
        sha256=status.model_sha256,
        blake3=status.model or "",
        scores=scores_of(status),
        plan_digest=plan_id(plan),
        **_promised(agreed, gateways, private=not status.insecure_deterministic),
    )


def scores_of(status: RunStatus) -> dict[str, float]:
    """Return F1 of a run's model by split, as it was reported."""
    return {each.split: each.f1 for each in status.scores if each.weights == status.model}


def _promised(plan: Plan, gateways: tuple[GatewayCard, ...], *, private: bool) -> dict[str, Any]:
    """Return the fields of a card that tell the task, and what is promised to whom."""
    largest = max((each.epsilon for each in gateways if each.epsilon is not None), default=0.0)
    return {
        "task": plan.task.name,
        "task_digest": plan.task.digest,
        "labels": plan.task.labels,
        "layout": plan.task.layout,
        "private": private,
        "statement": _statement(plan, largest) if private else "not private: seeded",
        "epsilon": largest if private else None,
        "delta": plan.privacy.delta,
        "relation": plan.privacy.relation,
        "unit": plan.privacy.unit,
        "gateways": gateways,
    }


def _lineage_card(checked: Checked, last: str) -> LineageCard:
    rounds = checked.lineage.rounds
    newest = rounds[-1]
    return LineageCard(
        public_key=checked.lineage.public_key,
        federation=newest.federation,
        statements=len(rounds) + 1,
        last=last,
        initial_weights=checked.plan.initial_weights,
        software=newest.software,
        strategy=newest.strategy,
        server=newest.server,
        updates_kept=newest.updates_kept,
    )


def _gateway_card(
    name: str,
    plan: Plan,
    charged: tuple[PrivacyEvent, ...] | None,
    rounds: tuple[int, int],
) -> GatewayCard:
    """Return a gateway's card; `rounds` are those charged at most, and those counted."""
    participant = plan.participant(name)
    spent = None if charged is None else epsilon(charged, plan.privacy.delta)
    return GatewayCard(
        gateway=name,
        declared_units=participant.declared_units if participant else 0,
        rounds_charged=rounds[0],
        rounds_counted=rounds[1],
        epsilon=spent.pld if spent else None,
        epsilon_rdp=spent.rdp if spent else None,
    )


def _statement(plan: Plan, largest: float) -> str:
    return (
        f"epsilon {rounded_up(largest)} at delta {plan.privacy.delta} ({plan.privacy.unit} unit, "
        f"{plan.privacy.relation} neighbours), for a unit that lives at one gateway"
    )
