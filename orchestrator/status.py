"""A run as its operator sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.protocol import Effective, GatewayStatus, RunStatus
from orchestrator.reputation import standing
from orchestrator.steps import why_on_hold

if TYPE_CHECKING:
    from common.ids import GatewayId
    from orchestrator.runs import Run


@dataclass(frozen=True)
class Observed:
    """What of a run is not in its journal."""

    connected: frozenset[GatewayId]
    remaining_s: float
    bytes_received: int
    bytes_sent: int


def status_of(run: Run, observed: Observed) -> RunStatus:
    """Return everything that an operator may know of `run`."""
    return RunStatus(
        run_id=run.run_id,
        name=run.plan.name,
        state=run.state,
        plan_digest=run.plan_digest,
        reason=run.reason or why_on_hold(run, observed.connected),
        round=0 if run.round is None else run.round.number,
        rounds=run.plan.rounds.count,
        opened_rounds=run.opened,
        published_round=run.published,
        weights=run.weights,
        model=run.model,
        model_sha256=run.model_sha256,
        gateways=tuple(_gateway(run, g, observed) for g in sorted(run.participants)),
        scores=run.scores,
        remaining_s=observed.remaining_s,
        bytes_received=observed.bytes_received,
        bytes_sent=observed.bytes_sent,
        insecure_deterministic=any(map(_is_insecure, run.answers.values())),
        privacy=run.plan.privacy,
        plan_signature=run.plan_signature,
        norm_bound=None if run.round is None else run.round.norm_bound,
    )


def _gateway(run: Run, gateway: GatewayId, observed: Observed) -> GatewayStatus:
    record, thresholds = run.records.of(gateway), run.plan.reputation
    refused = None if run.round is None else run.round.refused.get(gateway)
    return GatewayStatus(
        gateway=gateway,
        connected=gateway in observed.connected,
        answered=run.round is not None and run.round.has_answered(gateway),
        rounds_invited=run.invitations.get(gateway, 0),
        rounds_counted=run.memberships.get(gateway, 0),
        answer=run.answers.get(gateway),
        refused=None if refused is None else refused.reason,
        rounds_refused=record.rounds_refused,
        rounds_clipped=record.rounds_clipped,
        score=None if thresholds is None else record.score,
        standing=None if thresholds is None else standing(record, thresholds),
    )


def _is_insecure(answer: object) -> bool:
    return isinstance(answer, Effective) and answer.insecure_deterministic
