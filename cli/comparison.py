"""Two runs side by side: what they were told to do, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cli.model_card import charged_to
from common.accounting import epsilon_pld

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from common.plan import Plan
    from common.protocol import RunStatus

# digests and shapes that say nothing to people, and what stands in the results
_NOT_SHOWN = {"name", "initial_weights", "participants"}


class RunResult(BaseModel):
    """What came of one run so far."""

    model_config = ConfigDict(frozen=True)

    run: str
    state: str
    rounds_published: int
    gateways: int
    f1_dev: float | None  # the best of all rounds; None: nobody has scored it
    f1_test: float | None
    epsilon: float | None  # PLD, of the gateway that has spent most; None: noise was seeded
    delta: float
    unit: str
    relation: str
    bytes_received: int  # by the orchestrator
    bytes_sent: int


class Comparison(BaseModel):
    """Two runs: each one's results, and every setting of their plans."""

    model_config = ConfigDict(frozen=True)

    runs: tuple[RunResult, RunResult]
    settings: dict[str, tuple[Any, Any]]  # None where a plan has no such setting
    differ: tuple[str, ...]  # the settings that are not the same


def compare(a: tuple[RunStatus, Plan], b: tuple[RunStatus, Plan]) -> Comparison:
    """Return two runs, each with its plan, side by side."""
    first, second = settings_of(a[1]), settings_of(b[1])
    names = dict.fromkeys((*first, *second))
    settings = {name: (first.get(name), second.get(name)) for name in names}
    return Comparison(
        runs=(_result(*a), _result(*b)),
        settings=settings,
        differ=tuple(name for name, (mine, other) in settings.items() if mine != other),
    )


def settings_of(plan: Plan) -> dict[str, Any]:
    """Return what a plan says, by dotted name: `hyperparameters.learning_rate`."""
    fields = plan.model_dump(mode="json", exclude=_NOT_SHOWN)
    fields["task"].pop("layout")
    sites = {p.gateway: p.declared_units for p in plan.participants}
    return dict(_flat({**fields, "declared_units": sites}, ""))


def _flat(fields: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _result(status: RunStatus, plan: Plan) -> RunResult:
    charged = [charged_to(gateway) for gateway in status.gateways]
    spent = [None if each is None else epsilon_pld(each, plan.privacy.delta) for each in charged]
    is_known = None not in spent and spent
    return RunResult(
        run=status.run_id,
        state=status.state,
        rounds_published=status.published_round,
        gateways=len(status.gateways),
        f1_dev=_best(status, "dev"),
        f1_test=_best(status, "test"),
        epsilon=max(each or 0.0 for each in spent) if is_known else None,
        delta=plan.privacy.delta,
        unit=plan.privacy.unit,
        relation=plan.privacy.relation,
        bytes_received=status.bytes_received,
        bytes_sent=status.bytes_sent,
    )


def _best(status: RunStatus, split: str) -> float | None:
    return max((scores.f1 for scores in status.scores if scores.split == split), default=None)
