"""What a federation's public figures are, round by round: nothing here is private to a gateway."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cli.comparison import settings_of
from cli.evidence import check
from cli.model_card import charged_by
from common.accounting import COARSE_INTERVAL, PLD_INTERVAL, PrivacyEvent, epsilon_pld
from common.wire import plan_from_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.evidence import Evidence
    from common.lineage import RoundStatement
    from common.plan import Plan
    from common.protocol import RunStatus


@dataclass(frozen=True)
class Point:
    """One figure of one round."""

    name: str
    round: int
    value: float


@dataclass(frozen=True)
class Figures:
    """All figures of a run so far, and what it is."""

    points: tuple[Point, ...]
    settings: dict[str, Any]  # of the plan, by dotted name
    tags: dict[str, str]


class RoundTimes:
    """How long rounds took that were seen to be published, one after the other."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._newest: int | None = None
        self._at: float | None = None  # when it was published; None: before the first look

    def see(self, published: int, now: float) -> None:
        """Note which round is published at a reading of the monotonic clock, in seconds."""
        if self._newest is None:
            self._newest = published
        if published == self._newest + 1 and self._at is not None:
            self.points.append(Point("seconds/round", published, now - self._at))
        if published > self._newest:
            self._newest, self._at = published, now


def with_times(figures: Figures, times: RoundTimes) -> Figures:
    """Return figures and beside them how long rounds took."""
    return replace(figures, points=(*figures.points, *times.points))


def figures_of(status: RunStatus, evidence: Evidence) -> Figures:
    """Return the figures of a run.

    What is of each round comes from its lineage, which is proven first. A run that an older version
    began has none from its start, and then epsilon is not known.

    Raises:
        PlanSignatureRefused, LineageBroken: something is not as it was signed.
    """
    plan, points = plan_from_bytes(evidence.plan), list(_of_scores(status))
    if evidence.is_from_the_start:
        rounds = check(evidence).lineage.rounds
        for statement in rounds:
            points += _of_round(statement, plan, is_last=statement is rounds[-1])
    if status.published_round:
        points += (
            Point("bytes/received", status.published_round, status.bytes_received),
            Point("bytes/sent", status.published_round, status.bytes_sent),
        )
    return Figures(tuple(points), settings_of(plan), _tags(status, plan, evidence))


def _of_scores(status: RunStatus) -> Iterator[Point]:
    for each in status.scores:
        yield Point(f"f1/{each.split}", each.round, each.f1)
        yield Point(f"precision/{each.split}", each.round, each.precision)
        yield Point(f"recall/{each.split}", each.round, each.recall)


def _of_round(statement: RoundStatement, plan: Plan, *, is_last: bool) -> Iterator[Point]:
    number, updates = statement.round, statement.updates
    yield Point("updates", number, len(updates))
    yield Point("bytes/updates", number, len(updates) * plan.update_form.byte_length)
    norms = [each.norm for each in updates if each.norm is not None]
    if norms:
        yield Point("update_norm/largest", number, max(norms))
    if statement.norm_bound is not None:
        yield Point("update_norm/bound", number, statement.norm_bound)
    charged = set(charged_by(statement).values())
    if None not in charged:  # no noise was seeded
        interval = PLD_INTERVAL if is_last else COARSE_INTERVAL
        spent = [_spent(each, plan.privacy.delta, interval) for each in charged if each]
        yield Point("epsilon", number, max(spent, default=0.0))


@lru_cache(maxsize=4096)  # gateways are often charged alike, and who follows asks again
def _spent(charged: tuple[PrivacyEvent, ...], delta: float, interval: float) -> float:
    return epsilon_pld(charged, delta, interval=interval)


def _tags(status: RunStatus, plan: Plan, evidence: Evidence) -> dict[str, str]:
    ordered, privacy = evidence.plan_signature, plan.privacy
    return {
        "federation": evidence.federation,
        "run": status.run_id,
        "state": status.state,
        "plan": plan.name,
        "plan_digest": status.plan_digest,
        "plan_signed_by": "" if ordered is None else ordered.public_key,
        "task": plan.task.name,
        "task_digest": plan.task.digest,
        "model_sha256": status.model_sha256,
        "private": str(not status.insecure_deterministic).lower(),
        "epsilon_is_for": f"{privacy.unit}, {privacy.relation}, delta {privacy.delta:g}",
    }
