"""A model's folder: weights, the card that says what they are, and what the card is made from."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cli.evidence import Evidence
from cli.model_card import GatewayCard, ModelCard, card_of
from common.config import problems_of
from common.errors import RequestError
from common.ids import RunId
from common.lineage import LineageBroken, lineage_from
from common.signatures import PlanSignature
from common.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterator

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "model.json"
LINEAGE_FILE = "lineage.jsonl"
PLAN_FILE = "plan.pb"
SAME_EPSILON = 1e-6  # relative: libraries of another version round otherwise


class ModelUnreadable(RequestError):
    """A folder does not hold a model as `fedgate model export` writes it."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(
            f"{folder}: {problem}; write it again with `fedgate model export RUN --out {folder}`"
        )


class NoLineage(RequestError):
    """Nothing proves a model: an older version began its run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder}: the run was begun by a version that signed no lineage, so that nothing but "
            f"its orchestrator's word says what the model was made of; {CARD_FILE} holds that word"
        )


def write_model(
    folder: Path, data: bytes | memoryview, card: ModelCard, evidence: Evidence
) -> Path:
    """Write a model, its card and what proves it; return the path of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = evidence.signed if card.lineage else ()  # of what is not proven nothing is kept
    (folder / LINEAGE_FILE).write_bytes(b"".join(each.to_text() + b"\n" for each in shown))
    (folder / PLAN_FILE).write_bytes(evidence.plan)
    (folder / WEIGHTS_FILE).write_bytes(data)
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return folder / WEIGHTS_FILE


def read_model(folder: Path) -> tuple[Weights, ModelCard]:
    """Return a model and its card; raise ModelUnreadable if the two do not fit together."""
    try:
        card = ModelCard.model_validate_json(_read(folder, CARD_FILE))
    except ValidationError as error:
        raise ModelUnreadable(folder, problems_of(error)[0]) from error
    data = _read(folder, WEIGHTS_FILE)
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise ModelUnreadable(folder, f"{WEIGHTS_FILE} is not the one that {CARD_FILE} describes")
    return Weights.from_bytes(data, card.layout), card


def prove_folder(folder: Path, key: str | None = None) -> ModelCard:
    """Return the card of a model, of which all but the scores follows from plan and lineage.

    Args:
        folder: as `write_model` wrote it.
        key: who must have signed the lineage; None: whoever signed the first statement.

    Raises:
        ModelUnreadable: files are missing, or do not fit together.
        NoLineage: there is none.
        PlanSignatureRefused: whoever is said to have ordered the run did not order this.
        LineageBroken: a statement is not as it was signed; it is named.
    """
    _, card = read_model(folder)
    if card.lineage is None:
        raise NoLineage(folder)
    evidence = Evidence(
        federation=card.lineage.federation,
        run=RunId(card.run),
        plan=_read(folder, PLAN_FILE),
        plan_signature=_ordered(card, card.lineage.federation),
        signed=lineage_from(_read(folder, LINEAGE_FILE)),
    )
    made = card_of(evidence, card.scores, key)
    if made.sha256 != card.sha256:
        raise LineageBroken("the model", f"{CARD_FILE} and {WEIGHTS_FILE} are of another one")
    for unlike in _unlike(made, card):
        problem = f"{CARD_FILE} says another {unlike} than {PLAN_FILE} and {LINEAGE_FILE}"
        raise ModelUnreadable(folder, problem)
    return card


def _ordered(card: ModelCard, federation: str) -> PlanSignature | None:
    if card.plan_signed_by is None:
        return None
    signature = card.plan_signature or ""
    return PlanSignature(federation, card.run, card.plan_signed_by, signature)


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ModelUnreadable(folder, f"{name}: {error.strerror or error}") from error


def _unlike(made: ModelCard, said: ModelCard) -> Iterator[str]:
    """Yield what a card says otherwise than the one that was made again."""
    if [each.gateway for each in made.gateways] != [each.gateway for each in said.gateways]:
        yield "list of gateways"
    for ours, theirs in zip(made.gateways, said.gateways, strict=False):
        yield from (f"{name} of {ours.gateway}" for name in _differing(ours, theirs))
    yield from (name for name in _differing(made, said) if name != "gateways")


def _differing(made: GatewayCard | ModelCard, said: GatewayCard | ModelCard) -> Iterator[str]:
    for name, ours in made:
        if not _same(ours, getattr(said, name), tolerant=name.startswith("epsilon")):
            yield name.replace("_", " ")


def _same(ours: Any, theirs: Any, *, tolerant: bool) -> bool:
    if tolerant and None not in {ours, theirs}:
        return math.isclose(ours, theirs, rel_tol=SAME_EPSILON)
    return bool(ours == theirs)
