"""What there is to know of a run's model without an accountant, and so without the gateways' side.

`fedgate model export` makes the card that is proven and has epsilon exactly; this one says of
epsilon how much it is at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    return "\n".join(_lines(card)) + "\n"


def _lines(card: dict[str, Any]) -> Iterator[str]:
    yield from (f"# Model of run {card['run']}", "")
    promise = (
        f"Private: epsilon at most {card['target_epsilon']:g} at delta {card['delta']:g} "
        f"({card['unit']} unit, {card['relation']} neighbours), for a unit that lives at "
        "one gateway."
    )
    yield from (promise if card["private"] else "**Not private**: noise was seeded.", "")
    yield from ("| what | value |", "|---|---|")
    yield f"| task | {card['task']} (`{card['task_digest'][:12]}`) |"
    yield f"| labels | {', '.join(card['labels'])} |".replace("\n", " ")
    yield f"| parameters | {card['parameters']} |"
    yield f"| rounds | {card['rounds']} |"
    for name in ("sha256", "blake3", "plan_digest", "plan_signed_by"):
        yield f"| {name.replace('_', ' ')} | `{card[name]}` |"
    for split, f1 in sorted(card["scores"].items()):
        yield f"| F1, {split} | {100 * f1:.2f} |"
    yield from ("", "## Gateways", "")
    yield from ("| gateway | declared units | rounds | epsilon at most |", "|---|---|---|---|")
    for each in card["gateways"]:
        bound = each["epsilon_at_most"]
        spent = "none: seeded" if bound is None else f"{bound:.2f}"
        rounds = f"{each['rounds_counted']} of {each['rounds_charged']}"
        yield f"| {each['gateway']} | {each['declared_units']} | {rounds} | {spent} |"
    yield from ("", "`rounds`: counted in a published mean, of those charged at most.")
    yield f"`fedgate model export {card['run']}` makes the card that proves what it says."
