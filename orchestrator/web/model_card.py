"""What there is to know of a run's model without an accountant, and so without the gateways' side.

`fedgate model export` makes the card that is proven and has epsilon exactly; this one says of
epsilon how much it is at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common.markdown import row, table
from common.model_page import FACTS, ROUNDS, gateway_row, gateways, opening, score_facts, task_facts
from orchestrator.web.view import epsilon_at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from common.protocol import GatewayStatus, RunStatus
    from orchestrator.runs import Run


def card_of(run: Run, status: RunStatus) -> dict[str, Any]:
    """Return the card of a completed run's model, as JSON has it."""
    plan, ordered = run.plan, run.plan_signature
    return {
        "run": run.run_id,
        "task": plan.task.name,
        "task_digest": plan.task.digest,
        "labels": list(plan.task.labels),
        "parameters": plan.task.layout.size,
        "rounds": run.published,
        "sha256": run.model_sha256,
        "blake3": run.model,
        "private": not status.insecure_deterministic,
        "target_epsilon": plan.privacy.target_epsilon,
        "delta": plan.privacy.delta,
        "relation": str(plan.privacy.relation),
        "unit": str(plan.privacy.unit),
        "gateways": [_gateway(run, each) for each in status.gateways],
        "scores": {each.split: each.f1 for each in run.scores if each.weights == run.model},
        "plan_digest": run.plan_digest,
        "plan_signed_by": None if ordered is None else ordered.public_key,
    }


def _gateway(run: Run, status: GatewayStatus) -> dict[str, Any]:
    participant = run.plan.participant(status.gateway)
    return {
        "gateway": status.gateway,
        "declared_units": participant.declared_units if participant else 0,
        "rounds_charged": status.rounds_invited,
        "rounds_counted": status.rounds_counted,
        "epsilon_at_most": epsilon_at_most(run, status),  # null: its noise was seeded
    }


def text_of(card: dict[str, Any]) -> str:
    """Return a card as a page in Markdown."""
    return "\n".join(_parts(card))


def _parts(card: dict[str, Any]) -> Iterator[str]:
    promise = (
        f"epsilon at most {card['target_epsilon']:g} at delta {card['delta']:g} ({card['unit']} "
        f"unit, {card['relation']} neighbours), for a unit that lives at one gateway"
    )
    yield opening(card["run"], promise if card["private"] else None)
    told = (card[name] for name in ("task", "task_digest", "labels", "parameters", "rounds"))
    digests = [
        row(name.replace("_", " "), f"`{card[name]}`" if card[name] else "nobody")
        for name in ("sha256", "blake3", "plan_digest", "plan_signed_by")
    ]
    yield table(FACTS, [*task_facts(*told), *digests, *score_facts(card["scores"])])
    yield "## Gateways\n"
    yield gateways(map(_row, card["gateways"]), "epsilon at most")
    yield (
        ROUNDS + f"`fedgate model export {card['run']}` makes the card that proves what it says.\n"
    )


def _row(of: dict[str, Any]) -> str:
    bound, rounds = of["epsilon_at_most"], (of["rounds_counted"], of["rounds_charged"])
    spent = None if bound is None else f"{bound:.2f}"
    return gateway_row(of["gateway"], of["declared_units"], rounds, spent)
