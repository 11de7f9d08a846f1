"""A model's folder: `model.safetensors` and `model.json`, the card that says what it is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from common.accounting import PrivacyEvent, epsilon, round_event, rounded_up
from common.config import problems_of
from common.errors import RequestError
from common.plan import Plan, Relation, Unit
from common.protocol import Effective
from common.weights import Layout, Weights

if TYPE_CHECKING:
    from common.protocol import GatewayStatus, RunStatus

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"


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


def charged_to(status: GatewayStatus) -> tuple[PrivacyEvent, ...] | None:
    """Return what a gateway may have run; None if its noise was seeded.

    Every round that it was told to train counts, whether or not its update did.
    """
    if not isinstance(status.answer, Effective) or not status.rounds_invited:
        return ()
    if status.answer.insecure_deterministic:
        return None
    return (round_event(status.answer.hyperparameters).times(status.rounds_invited),)


def card_of(status: RunStatus, plan: Plan) -> ModelCard:
    """Return the card of a completed run's model."""
    gateways = tuple(_gateway_card(gateway, plan) for gateway in status.gateways)
    private = not status.insecure_deterministic
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
    )


def write_model(folder: Path, data: bytes | memoryview, card: ModelCard) -> Path:
    """Write a model and its card; return the path of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
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


def _gateway_card(status: GatewayStatus, plan: Plan) -> GatewayCard:
    participant, charged = plan.participant(status.gateway), charged_to(status)
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
