"""What is shown for a run's model, checked without believing who shows it: plan, order, lineage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common import plan_signature
from common.lineage import LineageBroken, Origin, RoundStatement, check_lineage
from common.wire import plan_from_bytes, plan_id
from orchestrator.norms import REFUSED, norm_bound, remembered
from orchestrator.server_optimizer import tail_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.ids import PlanId, RunId
    from common.lineage import Lineage, ModelStatement, Signed
    from common.plan import Plan
    from common.signatures import PlanSignature
    from orchestrator.norms import Norms


@dataclass(frozen=True)
class Evidence:
    """A run's plan, who ordered it, and the statements of what it published: not checked yet."""

    federation: str
    run: RunId
    plan: bytes
    plan_signature: PlanSignature | None  # None: of before plans were signed
    signed: Sequence[Signed]

    @property
    def is_from_the_start(self) -> bool:
        """Whether statements begin with the run; they do not where an older version began it."""
        if not self.signed:
            return False
        try:
            first = self.signed[0].statement
        except ValueError:
            return True  # `check` says what is wrong with it
        return not isinstance(first, RoundStatement) or first.round == 1


@dataclass(frozen=True)
class Checked:
    """Evidence that fits together."""

    run: RunId
    plan: Plan
    plan_digest: PlanId
    plan_signed_by: str | None  # Ed25519 public key; None: nobody has signed it
    lineage: Lineage


def check(evidence: Evidence, key: str | None = None) -> Checked:
    """Return what evidence says, of which everything is signed and agrees with the plan.

    Args:
        evidence: what is shown.
        key: who must have signed the lineage; None: whoever signed the first statement.

    Raises:
        PlanSignatureRefused: whoever is said to have ordered the run did not order this.
        LineageBroken: a statement is not as it was signed, or says what the plan does not; the
            first such statement is named.
    """
    plan, digest = plan_from_bytes(evidence.plan), plan_id(evidence.plan)
    ordered = evidence.plan_signature
    if ordered is not None:
        plan_signature.check(ordered, evidence.federation, evidence.run, digest)
    origin = Origin(evidence.federation, evidence.run, digest, plan.initial_weights)
    lineage = check_lineage(evidence.signed, origin, key)
    _agree(lineage, plan)
    return Checked(
        run=evidence.run,
        plan=plan,
        plan_digest=digest,
        plan_signed_by=None if ordered is None else ordered.public_key,
        lineage=lineage,
    )


def _agree(lineage: Lineage, plan: Plan) -> None:
    """Raise LineageBroken at the first statement that says what the plan does not."""
    known: Norms = {}
    for statement in lineage.rounds:
        for problem in _problems(statement, plan, known):
            raise LineageBroken(statement.name, problem)
        if not plan.update_norm.is_off:
            norms = {each.gateway: each.norm for each in statement.updates if each.norm is not None}
            known = remembered(known, norms, statement.norm_bound)
    if lineage.model is not None and (problem := _unlike_plan(lineage.model, plan)):
        raise LineageBroken(lineage.model.name, problem)


def _problems(statement: RoundStatement, plan: Plan, known: Norms) -> Iterator[str]:
    said = {
        "whether updates are kept": (statement.updates_kept, plan.keep_updates),
        "privacy": (statement.privacy, plan.privacy),
        "server": (statement.server, plan.server),
        "number of rounds": (statement.rounds, plan.rounds.count),
    }
    yield from (f"its {name} is not the plan's" for name, (a, b) in said.items() if a != b)
    names = [each.gateway for each in statement.updates]
    if len(set(names)) < len(names):
        yield "an update of one gateway is in it twice"
    if len(names) < plan.rounds.quorum:
        yield f"it is of {len(names)} updates, the plan's quorum is {plan.rounds.quorum}"
    for each in statement.updates:
        if each.weight != (weight := plan.weight(each.gateway)):
            yield f"it gives {each.gateway} the weight {each.weight}, the plan {weight}"
    invited = sum(each.weight for each in statement.updates), sum(map(plan.weight, plan.gateways))
    if not invited[0] <= statement.total_weight <= invited[1]:
        yield f"its total weight is {statement.total_weight}, no {invited[0]} to {invited[1]}"
    bound = norm_bound(plan.update_norm, known)
    if statement.norm_bound != bound:
        yield f"its bound on norms is {statement.norm_bound!r}, by the plan it is {bound!r}"
    for each in statement.updates:
        if bound is not None and (each.norm is None or each.norm > REFUSED * bound):
            yield f"its update of {each.gateway} has the norm {each.norm!r}, the bound is {bound!r}"


def _unlike_plan(statement: ModelStatement, plan: Plan) -> str:
    said = {
        "number of rounds": (statement.rounds, plan.rounds.count),
        "tail": (statement.tail, tail_length(plan.server, plan.rounds.count)),
    }
    unlike = [f"its {name} is {a}, by the plan {b}" for name, (a, b) in said.items() if a != b]
    return unlike[0] if unlike else ""
