"""What a model's card says as Markdown, whether it is proven or the orchestrator's word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.markdown import row, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FACTS = ("what", "value")
ROUNDS = "`rounds`: counted in a published mean, of those charged at most.\n"


def opening(run: str, promise: str | None) -> str:
    """Return the title and what is promised; None: noise was seeded."""
    said = "**Not private**: noise was seeded." if promise is None else f"Private: {promise}."
    return f"# Model of run {run}\n\n{said}\n"


def task_facts(
    task: str, digest: str, labels: Sequence[str], parameters: int, rounds: int
) -> list[str]:
    """Return the rows that say what was trained."""
    return [
        row("task", f"{task} (`{digest[:12]}`)"),
        row("labels", ", ".join(labels)),
        row("parameters", f"{parameters}"),
        row("rounds", f"{rounds}"),
    ]


def score_facts(scores: Mapping[str, float]) -> list[str]:
    """Return a row for each split that was scored."""
    return [row(f"F1, {split}", f"{100 * f1:.2f}") for split, f1 in sorted(scores.items())]


def gateways(rows: Iterable[str], epsilon: str) -> str:
    """Return the table of gateways, of which `gateway_row` makes each line."""
    return table(("gateway", "declared units", "rounds", epsilon), rows)


def gateway_row(name: str, units: int, rounds: tuple[int, int], epsilon: str | None) -> str:
    """Return a gateway's line: rounds counted, of those charged; None: its noise was seeded."""
    counted, charged = rounds
    return row(name, f"{units}", f"{counted} of {charged}", epsilon or "none: seeded")
