"""A model's card as a page in Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.accounting import rounded_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cli.model_card import GatewayCard, LineageCard, ModelCard


def page_of(card: ModelCard) -> str:
    """Return the card as a page that a person reads."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: ModelCard) -> Iterator[str]:
    yield from (f"# Model of run {card.run}", "")
    yield from (f"{_promise(card)}", "")
    yield from _table(
        ("what", "value"),
        [
            ("task", f"{card.task} (`{card.task_digest[:12]}`)"),
            ("labels", ", ".join(card.labels)),
            ("parameters", f"{card.layout.size}"),
            ("rounds", f"{card.rounds}"),
            ("SHA-256", f"`{card.sha256}`"),
            ("BLAKE3", f"`{card.blake3}`"),
            *((f"F1, {split}", f"{100 * f1:.2f}") for split, f1 in sorted(card.scores.items())),
        ],
    )
    yield from ("", "## Privacy", "")
    yield f"At delta {card.delta}, {card.relation} neighbours; the unit is the {card.unit}."
    yield from (
        "",
        *_table(("gateway", "declared units", "rounds", "epsilon"), map(_row, card.gateways)),
    )
    yield from ("", "`rounds`: counted in a published mean, of those charged at most.", "")
    if card.lineage is not None:
        yield from ("## Lineage", "", *_lineage(card.lineage, card))


def _promise(card: ModelCard) -> str:
    return f"Private: {card.statement}." if card.private else "**Not private**: noise was seeded."


def _row(gateway: GatewayCard) -> tuple[str, str, str, str]:
    spent = "none: seeded" if gateway.epsilon is None else rounded_up(gateway.epsilon)
    rounds = f"{gateway.rounds_counted} of {gateway.rounds_charged}"
    return gateway.gateway, f"{gateway.declared_units}", rounds, spent


def _lineage(lineage: LineageCard, card: ModelCard) -> Iterator[str]:
    server = lineage.server
    kept = (
        "kept: `fedgate model verify` makes every round again"
        if lineage.updates_kept
        else ("not kept: that a round is the mean of its updates is the signer's statement")
    )
    yield from _table(
        ("what", "value"),
        [
            ("federation", lineage.federation),
            ("signed by", f"`{lineage.public_key}`"),
            ("statements", f"{lineage.statements}, the last `{lineage.last}`"),
            ("plan", f"`{card.plan_digest}`"),
            ("plan ordered by", f"`{card.plan_signed_by}`" if card.plan_signed_by else "nobody"),
            ("initial weights", f"`{lineage.initial_weights}`"),
            ("strategy", f"{lineage.strategy}; server: {_server(server.model_dump(mode='json'))}"),
            ("updates", kept),
            ("software", lineage.software),
        ],
    )


def _server(settings: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
