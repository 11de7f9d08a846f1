"""A model's card as a page in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.accounting import rounded_up
from common.markdown import row, table
from common.model_page import (
    FACTS,
    ROUNDS,
    gateway_row,
    gateways,
    opening,
    score_facts,
    task_facts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.model_card import GatewayCard, LineageCard, ModelCard


def page_of(card: ModelCard) -> str:
    """Return the card as a page that a person reads."""
    return "\n".join(_parts(card))


def _parts(card: ModelCard) -> Iterator[str]:
    yield opening(card.run, card.statement if card.private else None)
    yield table(
        FACTS,
        [
            *task_facts(card.task, card.task_digest, card.labels, card.layout.size, card.rounds),
            row("SHA-256", f"`{card.sha256}`"),
            row("BLAKE3", f"`{card.blake3}`"),
            *score_facts(card.scores),
        ],
    )
    yield "## Privacy\n"
    yield f"At delta {card.delta}, {card.relation} neighbours; the unit is the {card.unit}.\n"
    yield gateways(map(_row, card.gateways), "epsilon")
    yield ROUNDS
    if card.lineage is not None:
        yield "## Lineage\n"
        yield _lineage(card.lineage, card)


def _row(of: GatewayCard) -> str:
    spent = None if of.epsilon is None else rounded_up(of.epsilon)
    return gateway_row(of.gateway, of.declared_units, (of.rounds_counted, of.rounds_charged), spent)


def _lineage(lineage: LineageCard, card: ModelCard) -> str:
    server = lineage.server
    kept = (
        "kept: `fedgate model verify` makes every round again"
        if lineage.updates_kept
        else "not kept: that a round is the mean of its updates is the signer's statement"
    )
    facts = {
        "federation": lineage.federation,
        "signed by": f"`{lineage.public_key}`",
        "statements": f"{lineage.statements}, the last `{lineage.last}`",
        "plan": f"`{card.plan_digest}`",
        "plan ordered by": f"`{card.plan_signed_by}`" if card.plan_signed_by else "nobody",
        "initial weights": f"`{lineage.initial_weights}`",
        "strategy": f"{lineage.strategy}; server: {_server(server.model_dump(mode='json'))}",
        "updates": kept,
        "software": lineage.software,
    }
    return table(FACTS, (row(*fact) for fact in facts.items()))


def _server(settings: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
