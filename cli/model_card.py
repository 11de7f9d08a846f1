"""A model's folder: its weights, the card that says what they are, and the signed lineage.

The card is made from the lineage's facts; epsilon is worked out here, where an accountant is.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from common.accounting import PrivacyEvent, epsilon, round_event, rounded_up
from common.config import problems_of
from common.errors import RequestError
from common.ids import PlanId, RunId
from common.lineage import LineageBroken, Origin, check_lineage, lineage_from
from common.plan import Plan, Relation, ServerOptimizer, Unit
from common.protocol import Effective
from common.weights import Layout, Weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from common.lineage import Lineage, RoundStatement, Signed
    from common.protocol import GatewayStatus, RunStatus

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
LINEAGE_FILE = "lineage.jsonl"


class ModelUnreadable(RequestError):
    """A folder does not hold a model as `fedgate model export` writes it."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(
            f"{folder}: {problem}; write it again with `fedgate model export RUN --out {folder}`"
        )


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
    statements: int
    last: str  # SHA-256 of the last statement, which names the one before it
    plan: str
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
    scores: dict[str, float]  # F1 of the published model by split, fractions
    plan_digest: str = ""  # names the plan; empty: an older card
    plan_signed_by: str | None = None  # Ed25519 public key of who ordered it; None: nobody signed
    lineage: LineageCard | None = None  # None: an older version signed none


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


def card_of(status: RunStatus, plan: Plan, signed: Sequence[Signed] = ()) -> ModelCard:
    """Return the card of a completed run's model, made from the lineage where there is one.

    Raises:
        LineageBroken: the lineage is not whole, or of another model.
    """
    lineage = _lineage_of(status, plan, signed) if signed else None
    charged = charged_by(lineage.rounds[-1]) if lineage and lineage.rounds else None
    gateways = tuple(_gateway_card(gateway, plan, charged) for gateway in status.gateways)
    private = not status.insecure_deterministic
    ordered = status.plan_signature
    spent = [g.epsilon for g in gateways if g.epsilon is not None]
    return ModelCard(
        run=status.run_id,
        task=plan.task.name,
        task_digest=plan.task.digest,
        labels=plan.task.labels,
        layout=plan.task.layout,
        rounds=status.published_round,
        sha256=status.model_sha256,
        blake3=status.model or "",
        private=private,
        statement=_statement(plan, max(spent, default=0.0)) if private else "not private: seeded",
        epsilon=max(spent, default=0.0) if private else None,
        delta=plan.privacy.delta,
        relation=plan.privacy.relation,
        unit=plan.privacy.unit,
        gateways=gateways,
        scores={s.split: s.f1 for s in status.scores if s.weights == status.model},
        plan_digest=status.plan_digest,
        plan_signed_by=None if ordered is None else ordered.public_key,
        lineage=None if lineage is None else _lineage_card(lineage, signed[-1], plan),
    )


def write_model(
    folder: Path, data: bytes | memoryview, card: ModelCard, signed: Sequence[Signed] = ()
) -> Path:
    """Write a model, its card and its lineage; return the path of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    text = b"".join(each.to_text() + b"\n" for each in signed)
    (folder / LINEAGE_FILE).write_bytes(text)
    (folder / WEIGHTS_FILE).write_bytes(data)
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return folder / WEIGHTS_FILE


def read_model(folder: Path) -> tuple[Weights, ModelCard]:
    """Return a model and its card; raise ModelUnreadable if the two do not fit together."""
    try:
        card = ModelCard.model_validate_json((folder / CARD_FILE).read_text(encoding="utf-8"))
        data = (folder / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise ModelUnreadable(folder, error.strerror or str(error)) from error
    except ValidationError as error:
        raise ModelUnreadable(folder, problems_of(error)[0]) from error
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise ModelUnreadable(folder, f"{WEIGHTS_FILE} is not the one that {CARD_FILE} describes")
    return Weights.from_bytes(data, card.layout), card


def read_lineage(folder: Path) -> tuple[Signed, ...]:
    """Return the lineage beside a model; raise LineageBroken at the first line that is none."""
    try:
        data = (folder / LINEAGE_FILE).read_bytes()
    except OSError as error:
        raise ModelUnreadable(folder, error.strerror or str(error)) from error
    return lineage_from(data)


def prove_folder(folder: Path, key: str | None = None) -> ModelCard:
    """Return the card of a model that is the one its lineage ends with.

    Raises:
        ModelUnreadable: files are missing, or do not fit together.
        LineageBroken: a statement is not as it was signed; it is named.
    """
    _, card = read_model(folder)
    signed = read_lineage(folder)
    if card.lineage is None or not signed:
        raise ModelUnreadable(folder, f"{LINEAGE_FILE} or the card's part of it is empty")
    said = card.lineage
    lineage = check_lineage(
        signed, Origin(RunId(card.run), PlanId(said.plan), said.initial_weights), key
    )
    if lineage.model is None:
        raise LineageBroken("the statement of the model", "it is missing")
    if lineage.model.model_sha256 != card.sha256:
        raise LineageBroken("the model", f"{CARD_FILE} and {WEIGHTS_FILE} are of another one")
    if problem := _unlike(card, lineage, signed[-1]):
        raise ModelUnreadable(folder, f"{CARD_FILE} says another {problem} than {LINEAGE_FILE}")
    return card


def _unlike(card: ModelCard, lineage: Lineage, last: Signed) -> str:
    """Return what a card says that its lineage does not bear out, or nothing."""
    if card.lineage is None or card.lineage != _lineage_card(lineage, last, card.lineage):
        return "lineage"
    privacy = lineage.rounds[-1].privacy
    if (card.delta, card.relation, card.unit) != (privacy.delta, privacy.relation, privacy.unit):
        return "unit of privacy"
    by_gateway = charged_by(lineage.rounds[-1])
    for each in card.gateways:
        charged = by_gateway.get(each.gateway, ())
        spent = None if charged is None else epsilon(charged, privacy.delta)
        if each.epsilon != (spent and spent.pld) or each.epsilon_rdp != (spent and spent.rdp):
            return f"epsilon of {each.gateway}"
    largest = max((g.epsilon for g in card.gateways if g.epsilon is not None), default=0.0)
    return "" if not card.private or card.epsilon == largest else "epsilon"


def _lineage_of(status: RunStatus, plan: Plan, signed: Sequence[Signed]) -> Lineage:
    origin = Origin(status.run_id, status.plan_digest, plan.initial_weights)
    lineage = check_lineage(signed, origin)
    told = (status.model, status.model_sha256)
    if lineage.model is None or (lineage.model.model, lineage.model.model_sha256) != told:
        raise LineageBroken("the statement of the model", f"it is not of {status.model}")
    return lineage


def _lineage_card(lineage: Lineage, last: Signed, origin: Plan | LineageCard) -> LineageCard | None:
    if not lineage.rounds:
        return None
    newest = lineage.rounds[-1]
    return LineageCard(
        public_key=lineage.public_key,
        statements=len(lineage.rounds) + (lineage.model is not None),
        last=last.digest,
        plan=newest.plan,
        initial_weights=origin.initial_weights,
        software=newest.software,
        strategy=newest.strategy,
        server=newest.server,
        updates_kept=all(each.updates_kept for each in lineage.rounds),
    )


def _gateway_card(
    status: GatewayStatus,
    plan: Plan,
    by_gateway: Mapping[str, tuple[PrivacyEvent, ...] | None] | None,
) -> GatewayCard:
    participant, charged = plan.participant(status.gateway), charged_to(status)
    if by_gateway is not None:
        charged = by_gateway.get(status.gateway, ())
    spent = None if charged is None else epsilon(charged, plan.privacy.delta)
    return GatewayCard(
        gateway=status.gateway,
        declared_units=participant.declared_units if participant else 0,
        rounds_charged=status.rounds_invited,
        rounds_counted=status.rounds_counted,
        epsilon=spent.pld if spent else None,
        epsilon_rdp=spent.rdp if spent else None,
    )


def _statement(plan: Plan, largest: float) -> str:
    return (
        f"epsilon {rounded_up(largest)} at delta {plan.privacy.delta} ({plan.privacy.unit} unit, "
        f"{plan.privacy.relation} neighbours), for a unit that lives at one gateway"
    )
