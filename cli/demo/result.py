"""What the demo ends with: one JSON object, or a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from common.accounting import rounded_up
from common.console import OUT, emit_table
from common.plan import Relation, Unit

if TYPE_CHECKING:
    from cli.demo.local import LocalFederation
    from cli.model_card import ModelCard
    from common.protocol import RunStatus


class Baselines(BaseModel):
    """What the same head reaches without the federation's privacy, or without the federation."""

    model_config = ConfigDict(frozen=True)

    pooled: float  # all sites' data in one place, not private; F1 as a fraction
    alone: dict[str, float]  # each site by itself, not private


class DemoResult(BaseModel):
    """Everything the demo found."""

    model_config = ConfigDict(frozen=True)

    corpus: str  # or the plan's name
    sites: tuple[str, ...]
    rounds: int
    f1: float  # of the private federation on the public test split, fraction
    f1_dev: float
    f1_pooled_not_private: float | None  # None: it was compared with nothing
    f1_alone_not_private: dict[str, float]
    epsilon: float | None  # the largest over the gateways, PLD
    epsilon_per_gateway: dict[str, float | None]
    delta: float
    relation: Relation
    unit: Unit
    bytes_received: int
    bytes_sent: int
    seconds: float
    seconds_per_phase: dict[str, float]
    model_sha256: str
    model_path: Path

    @classmethod
    def of(
        cls,
        settings: LocalFederation,
        status: RunStatus,
        card: ModelCard,
        *,
        baselines: Baselines | None,
        phases: dict[str, float],
        path: Path,
    ) -> DemoResult:
        """Gather the result from what each process reported."""
        fields: dict[str, Any] = {
            "corpus": settings.title,
            "sites": tuple(settings.data),
            "rounds": status.published_round,
            "f1": card.scores["test"],
            "f1_dev": card.scores["dev"],
            "f1_pooled_not_private": baselines.pooled if baselines else None,
            "f1_alone_not_private": baselines.alone if baselines else {},
            "epsilon": card.epsilon,
            "epsilon_per_gateway": {g.gateway: g.epsilon for g in card.gateways},
            "delta": card.delta,
            "relation": card.relation,
            "unit": card.unit,
            "bytes_received": status.bytes_received,
            "bytes_sent": status.bytes_sent,
            "seconds": round(sum(phases.values()), 2),
            "seconds_per_phase": {name: round(spent, 2) for name, spent in phases.items()},
            "model_sha256": card.sha256,
            "model_path": path,
        }
        return cls(**fields)

    def print(self) -> None:
        """Print the tables."""
        pooled = self.f1_pooled_not_private
        alone = sorted(self.f1_alone_not_private.items(), key=lambda item: -item[1])
        rows = [
            ("federation, private", _points(self.f1), _epsilon(self.epsilon)),
            *(
                []
                if pooled is None
                else [("all data in one place, not private", _points(pooled), "none")]
            ),
            *((f"{site} alone, not private", _points(f1), "none") for site, f1 in alone),
        ]
        emit_table(f"{self.corpus}: F1 on the public test split", ("run", "F1", "epsilon"), rows)
        statement = f"delta {self.delta}, {self.relation} neighbours, unit: {self.unit}"
        per_gateway = [(site, _epsilon(spent)) for site, spent in self.epsilon_per_gateway.items()]
        emit_table(f"privacy ({statement})", ("gateway", "epsilon spent (PLD)"), per_gateway)
        phases = [(name, f"{spent:.1f}") for name, spent in self.seconds_per_phase.items()]
        emit_table("time", ("phase", "seconds"), [*phases, ("in all", f"{self.seconds:.1f}")])
        OUT.print(
            f"{self.rounds} rounds; {_mib(self.bytes_received)} MiB of updates came in, "
            f"{_mib(self.bytes_sent)} MiB of weights went out"
        )
        OUT.print(f"model: {self.model_path} (SHA-256 {self.model_sha256})", soft_wrap=True)


def _points(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _epsilon(value: float | None) -> str:
    return "none" if value is None else rounded_up(value)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f}"
