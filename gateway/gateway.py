"""The gateway: reviews plans, trains rounds privately, keeps updates until they are published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.accounting import is_within
from common.errors import RequestError
from common.hyperparameters import Hyperparameters, Overrides
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.plan import Plan
from common.protocol import RefusalReason
from common.update_form import Update
from common.weights import MalformedWeights, Weights
from gateway import data_sets, local_round
from gateway.charges import (
    BudgetExhausted,
    ChargedRound,
    ChargeState,
    ForeignStart,
    RoundCharge,
    RoundNotPlanned,
    RoundNotRepeatable,
    RunNotBegun,
    RunTerms,
    UnitChanged,
)
from gateway.choices import GradientsBy
from gateway.functional import FunctionalGradients, check_functional
from gateway.ledger import Ledger
from gateway.local_round import BegunRun, TrainedRound
from gateway.one_backward import OneBackward
from gateway.packing import UnitsOverlap, checked
from gateway.policy import Policy, Refused, Verdict, review
from gateway.sampling import PoissonSampler
from gateway.training import Gradients
from gateway.updates import UpdateLost, UpdateStore
from private_step import Batch
from private_step.devices import device_of, moved
from tasks.parameters import layout_of
from tasks.task import Dataset, Task, UnitNotCarried


class ForeignWeights(RequestError):
    """Weights are not those that the orchestrator announced on its own channel."""

    field = "weights"

    def __init__(self, *, got: WeightsId, announced: WeightsId) -> None:
        super().__init__(
            f"got weights {got[:12]}, the orchestrator announced {announced[:12]}: "
            "nothing was trained or charged; fetch them again"
        )


@dataclass(frozen=True)
class DeliveredWeights:
    """Weights with the digest that came over the orchestrator's authenticated channel."""

    announced: WeightsId
    weights: Weights


@dataclass(frozen=True)
class TrainRound:
    """One round to train: which run, which round, from which weights."""

    run: RunId
    round: int
    parent: DeliveredWeights


@dataclass(frozen=True)
class Site:
    """What is trained here: the task, its model, this gateway's examples.

    All is computed on the device on which the model lies; examples go there batch by batch.
    """

    task: Task
    model: nn.Module
    labels: tuple[str, ...]
    dataset: Dataset
    specimens: Batch  # a few synthetic examples of the task's input shape, for the model's check
    micro_batch: int  # records that are worked on at once
    gradients: GradientsBy = GradientsBy.ONE_BACKWARD


@dataclass(frozen=True)
class SiteRules:
    """What this gateway's operator has set down: enough to judge a plan without any data."""

    gateway: GatewayId
    data_set: str  # the operator's name for the examples, as the ledger knows them
    policy: Policy
    overrides: Overrides

    def judge(self, run: RunId, plan: Plan, ledger: Ledger) -> Verdict:
        """Review `plan`; a run that was begun goes on with the values that it was begun with."""
        if others := ledger.units_charged(self.data_set) - {plan.privacy.unit}:
            changed = UnitChanged(self.data_set, charged=others, asked=plan.privacy.unit)
            return Refused(changed.reason, changed.field, str(changed))
        known, overrides = ledger.run(run), self.overrides
        if known is not None:
            overrides = Overrides.of(known.effective)
        spent = ledger.events(self.data_set, but_for=run)
        return review(plan, self.gateway, overrides, self.policy, spent)


class Gateway:
    """One site's side of the federation, without any network."""

    def __init__(
        self,
        site: Site,
        ledger: Ledger,
        updates: UpdateStore,
        rules: SiteRules,
    ) -> None:
        """Check the model and tie the data to the ledger, which other data may not replace."""
        self._layout = layout_of(site.model)
        self._gradients = gradients_of(site)
        self.name = rules.gateway
        self._site = site
        self._ledger = ledger
        self._updates = updates
        self._rules = rules
        self._runs: dict[RunId, BegunRun] = {}
        self._data = ledger.bind_data_set(rules.data_set, site.dataset.content_digests())
        ready = (booked for booked in ledger.charges() if booked.state is ChargeState.READY)
        updates.keep_only({booked.update for booked in ready if booked.update is not None})

    def accept(self, run: RunId, plan: Plan, digest: PlanId) -> Verdict:
        """Review a plan and, if it passes, begin its run; again after a restart.

        A run that was begun goes on with the values that it was begun with.
        """
        verdict = self._task_mismatch(plan) or self._rules.judge(run, plan, self._ledger)
        if isinstance(verdict, Refused):
            return verdict
        try:
            self._begin(run, plan, digest, verdict.effective)
        except RoundNotRepeatable as error:
            return Refused(error.reason, "", str(error))
        except (UnitNotCarried, UnitsOverlap) as error:
            return Refused(RefusalReason.DATA_UNFIT, "", str(error))
        is_private = not self._ledger.insecure_deterministic
        return verdict if is_private else replace(verdict, projected=None)

    def fed_round(self, train: TrainRound) -> Update:
        """Train one round privately and return its update: the difference from the global weights.

        The charge is on the disk before the first example is read; the update is on the disk
        before it is returned. Asked again, the same bytes come back and nothing more is spent:
        from the disk, or trained again with the same randomness after a crash.

        Raises:
            ForeignWeights, MalformedWeights: the parent is not what the orchestrator announced.
            Equivocation: the round was charged on another parent.
            ForeignStart: the first round begins with other weights than the plan names.
            RunNotBegun, RoundNotPlanned, RoundNotRepeatable, RoundReleased, BudgetExhausted,
                UpdateNotRepeatable, UnitChanged: this gateway sits the round out.
        """
        run = self._run(train.run)
        global_weights = self._update_model(train.parent)
        charged = self._charge(run, train)
        if (kept := self._kept_update(run, charged)) is not None:
            return kept
        trained = local_round.train(run, self._gradients, global_weights, charged)
        return self._keep(run, charged, trained)

    def forget(self, run: RunId) -> None:
        """Let go of what was made ready for a run that has ended."""
        self._runs.pop(run, None)

    def _update_model(self, delivered: DeliveredWeights) -> Tensor:
        """Return the global weights, shape (parameters,), where the model lies.

        Raises:
            MalformedWeights, ForeignWeights: they are not what the orchestrator announced.
        """
        if delivered.weights.layout != self._layout:
            raise MalformedWeights("the weights have another layout than the model trained here")
        taken = Weights(self._layout, delivered.weights.values.copy())
        if taken.digest != delivered.announced:
            raise ForeignWeights(got=taken.digest, announced=delivered.announced)
        return torch.from_numpy(taken.values).to(device_of(self._site.model))

    def _begin(self, run: RunId, plan: Plan, digest: PlanId, effective: Hyperparameters) -> None:
        participant = plan.participant(self.name)
        declared = participant.declared_units if participant else 0
        privacy = plan.privacy
        units = checked(self._site.dataset.units(privacy.unit), len(self._site.dataset))
        terms = RunTerms(
            run=run,
            gateway=self.name,
            plan=digest,
            effective=effective,
            data=data_sets.grouped(self._ledger.data_key, self._data, privacy.unit, units),
            delta=privacy.delta,
            unit=privacy.unit,
            relation=privacy.relation,
        )
        self._ledger.begin_run(terms)
        rate = effective.sampling_rate
        self._runs[run] = BegunRun(
            terms,
            rounds=plan.rounds.count,
            expected_batch_size=declared * rate,
            sampler=PoissonSampler(rate, len(units)),
            units=units,
            form=plan.update_form,
            initial=WeightsId(plan.initial_weights),
        )

    def _task_mismatch(self, plan: Plan) -> Refused | None:
        task, here = plan.task, self._site
        pairs = {
            "task.name": (task.name, here.task.name),
            "task.digest": (task.digest, here.task.digest()),
            "task.labels": (task.labels, here.labels),
            "task.layout": (task.layout, self._layout),
        }
        for field, (asked, installed) in pairs.items():
            if asked != installed:
                sentence = f"{field}: the plan needs {asked!s:.80}, here is {installed!s:.80}"
                return Refused(RefusalReason.TASK_MISMATCH, field, sentence)
        return None

    def _run(self, run: RunId) -> BegunRun:
        if run not in self._runs:
            raise RunNotBegun(run)
        return self._runs[run]

    def _charge(self, run: BegunRun, train: TrainRound) -> ChargedRound:
        if not 1 <= train.round <= run.rounds:
            raise RoundNotPlanned(train.run, train.round, rounds=run.rounds)
        how = run.effective
        event = run.sampler.event(noise_multiplier=how.noise_multiplier, steps=how.local_steps)
        charge = RoundCharge(run.terms, train.round, train.parent.announced, event)
        if train.round == 1 and charge.parent != run.initial and not self._is_booked(charge):
            raise ForeignStart(train.run, got=charge.parent, planned=run.initial)
        if not self._stays_within_budget(charge):
            budget = self._rules.policy.epsilon_budget
            raise BudgetExhausted(train.run, train.round, budget=budget)
        return self._ledger.charge(charge)

    def _stays_within_budget(self, charge: RoundCharge) -> bool:
        """Whether a round may be booked; alone on its data, its whole plan has been judged."""
        run, name = charge.terms.run, self._data.name
        if self._is_booked(charge) or not self._ledger.events(name, but_for=run):
            return True
        return is_within(
            self._rules.policy.budget,
            spent=self._ledger.events(name),
            planned=charge.event,
            delta=charge.terms.delta,
        )

    def _is_booked(self, charge: RoundCharge) -> bool:
        place = (charge.terms.run, charge.round)
        return any((each.terms.run, each.round) == place for each in self._ledger.charges())

    def _kept_update(self, run: BegunRun, charged: ChargedRound) -> Update | None:
        """Return the round's update from the disk; None: train it, be it once more."""
        if charged.update is None:
            return None
        try:
            return Update.from_bytes(self._updates.read(charged.update), run.form)
        except UpdateLost:
            return None

    def _keep(self, run: BegunRun, charged: ChargedRound, trained: TrainedRound) -> Update:
        """Make the update durable, then known to the ledger; only then may it leave.

        What is kept is what is sent. Rounding at random follows from the round's secret, as its
        noise does: an update that is made once more is the same to the last bit.
        """
        update = Update.of(run.form, trained.difference.cpu().numpy(), charged.rounding)
        digest = self._updates.keep(update.data, update.digest)
        self._ledger.record_update(
            run.terms.run, charged.charge.round, digest, next_norm=trained.next_norm
        )
        return update


def gradients_of(site: Site) -> Gradients:
    """Check the model and return what clips its gradients, where the model lies."""
    loss, device = site.task.loss, device_of(site.model)
    specimens = moved(site.specimens, device)

    def read(rows: Sequence[int]) -> Batch:
        return moved(site.dataset.batch(rows), device)

    if site.gradients is GradientsBy.ONE_BACKWARD:
        return OneBackward(site.model, loss, read, specimens, site.micro_batch)
    check_functional(site.model, loss, specimens)
    return FunctionalGradients(site.model, loss, read, site.micro_batch)
