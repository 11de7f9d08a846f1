"""Makes a `Gateway` ready for a plan: the task's model and data for the plan's label set."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import structlog
import torch

from common.disk import SYSTEM_DISK
from common.errors import FederationError, UnavailableError
from common.plan import Unit
from common.protocol import RefusalReason
from common.surroundings import StateNotWritable
from gateway import audit_heads
from gateway.charges import ChargeState, LedgerUnreadable
from gateway.countersignatures import LedgerRolledBack
from gateway.device import device_here
from gateway.gateway import Gateway, Site, SiteRules
from gateway.ledger import Ledger
from gateway.pause import Pause
from gateway.policy import Accepted, Refused
from gateway.updates import UpdateStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from common.audit import Head, Sealed
    from common.disk import Disk
    from common.ids import GatewayId, PlanId, RunId
    from common.plan import Plan
    from common.protocol import Countersignature, LedgerHead
    from common.randomness import InsecureSeed
    from gateway.config import GatewayConfig
    from gateway.policy import Verdict
    from tasks.task import Task

LOG = structlog.get_logger()
FEATURES = "features"
EVERY_ROUND = (1 << 31) - 1
SEEDED_UPDATES = "insecure-updates"
# what a task, a full disk or a lack of memory may raise: a plan or a round is declined without a
# word of it, the process lives
FAILURES = (
    *(RuntimeError, ValueError, TypeError, LookupError, ArithmeticError),
    *(OSError, MemoryError),
)
# what a disk says that is full or fails now and may not later; a file that is missing stays missing
PASSING = frozenset(
    {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ESTALE}
)


class DiskFailed(UnavailableError):
    """This gateway's disk did not take or give bytes."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"this gateway's disk failed ({error.strerror}): it is tried again")


def open_ledger(state: Path, seed: InsecureSeed | None, *, exclusive: bool = True) -> Ledger:
    """Open the ledger in a gateway's folder, or only read it; seeded runs have one of their own."""
    if exclusive:
        make_state(state)
    path = ledger_file(state, seed).absolute()
    return Ledger.open(f"sqlite:///{path}", seed=seed, exclusive=exclusive)


def ledger_file(state: Path, seed: InsecureSeed | None = None) -> Path:
    """Return where in a gateway's folder its ledger lies, of private or of seeded runs."""
    return state / ("ledger.sqlite" if seed is None else "insecure-ledger.sqlite")


def make_state(state: Path) -> None:
    """Make a gateway's folder unless it is there; raise StateNotWritable."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StateNotWritable(state, error) from error


class Workshop:
    """What a gateway trains with, made once for each label set that a plan asks for."""

    def __init__(
        self,
        name: GatewayId,
        config: GatewayConfig,
        task: Task,
        seed: InsecureSeed | None,
        disk: Disk = SYSTEM_DISK,
    ) -> None:
        """Check every line of the data and open the ledger; updates are kept on `disk`.

        Raises:
            RequestError: the data have a fault, which is named with file and line.
            NoGpu: the settings ask for a GPU, and torch has none to offer.
            LedgerInUse, LedgerUnreadable: another process has it, or it is damaged.
        """
        torch.set_num_threads(config.threads)
        self.device = device_here(config.device)
        self.name = name
        self.pause = Pause(config.state, disk)
        self._config = config
        self._rules = rules_of(name, config)
        self._task = task
        self.report = task.check(config.data, config.task.labels)
        self._ledger = open_ledger(config.state, seed)
        updates = "updates" if seed is None else SEEDED_UPDATES
        self._updates = UpdateStore(config.state / updates, disk)
        self._gateways: dict[tuple[str, ...], Gateway] = {}
        self._of_run: dict[RunId, Gateway] = {}

    @property
    def tasks(self) -> Mapping[str, str]:
        """The digests of the installed tasks, by name."""
        return {self._task.name: self._task.digest()}

    @property
    def insecure_deterministic(self) -> bool:
        """Whether noise comes from a seed, so that nothing is private."""
        return self._ledger.insecure_deterministic

    @property
    def ledger_head(self) -> LedgerHead:
        """What stands for everything that was ever charged here."""
        return self._ledger.head

    def confirm(self, countersigned: Countersignature | None) -> None:
        """Keep what the orchestrator has countersigned; None: nothing yet.

        If the ledger lacks it, the process stays and declines, so that the orchestrator's operator
        learns the reason: every plan and every round, until an administrator has merged.

        Raises:
            CountersignatureForged, OrchestratorKeyChanged: it is not the known orchestrator's word.
        """
        if countersigned is not None:
            self._ledger.confirm(self.name, countersigned)
        try:
            self._ledger.check_standing()
        except LedgerRolledBack as error:
            LOG.error("ledger_rolled_back", why=str(error))  # noqa: TRY400  # the sentence is all

    @property
    def record_head(self) -> Head:
        """Where the orchestrator's audit log was last seen to stand."""
        with self._ledger.transaction() as connection:
            return audit_heads.head_of(connection)

    def see_record(self, sealed: Sealed) -> None:
        """Keep where the audit log stands now; what tells another story is kept too, and said.

        Training goes on: what is private does not hang on the log, and whoever is wronged by
        another story has the proof in hand.
        """
        with self._ledger.transaction() as connection:
            problem = audit_heads.see(connection, sealed)
        if problem:
            LOG.error("audit_log_tells_another_story", why=problem)

    def review(self, run: RunId, plan: Plan, digest: PlanId) -> Verdict:
        """Decide on a plan and, if it passes, be ready to train its rounds.

        Everything is decided from the plan, the settings and the ledger; the data are read only
        for a plan that has passed.

        Raises:
            DiskFailed, LedgerUnreadable: not decided; a refusal would hold for the whole run.
        """
        refused = self._swapped(run, digest) or self._refusal(run, plan)
        if refused is not None:
            return refused
        try:
            gateway = self._gateway(plan.task.labels)
        except (UnavailableError, LedgerUnreadable):
            raise
        except (FederationError, *FAILURES) as error:
            if isinstance(error, OSError) and error.errno in PASSING:
                raise DiskFailed(error) from error
            LOG.exception("not_ready", run=run)
            return Refused(RefusalReason.FAILED, "", "this gateway could not read its own data")
        verdict = gateway.accept(run, plan, digest)
        if isinstance(verdict, Accepted):
            self._of_run[run] = gateway
            self._note_units(run, plan.privacy.unit)
        return verdict

    def _note_units(self, run: RunId, unit: Unit) -> None:
        """Tell the site's own operator what is protected, and what is left out for it."""
        left_out = self.report.shared if unit is Unit.PERSON else 0
        count = self.report.per_unit.get(unit)
        LOG.info("unit_of_privacy", run=run, unit=str(unit), units=count, left_out=left_out)

    def _swapped(self, run: RunId, digest: PlanId) -> Refused | None:
        """Return why a plan is refused for a run that was begun under another, or None."""
        known = self._ledger.run(run)
        if known is None or known.plan == digest:
            return None
        return Refused(
            RefusalReason.EQUIVOCATION,
            "",
            f"run {run!r} was accepted under plan {known.plan[:12]}, and plan {digest[:12]} is "
            "offered for it: a run has one plan; ask the operator to start the other as a new run",
        )

    def _refusal(self, run: RunId, plan: Plan) -> Refused | None:
        """Return why the plan is refused, from what is public, or None."""
        found = verdict(self.name, self._config, self._task, self._ledger, (run, plan))
        return found if isinstance(found, Refused) else None

    def gateway(self, run: RunId) -> Gateway | None:
        """Return what trains `run`, or None if its plan has not been reviewed yet."""
        return self._of_run.get(run)

    def begins(self, run: RunId, number: int) -> bool:
        """Whether a round would be a new one: nothing was charged for it yet."""
        return not self._ledger.is_charged(run, number)

    def release(self, run: RunId, published_round: int) -> None:
        """Let go of the keys and bytes that published rounds no longer need."""
        for digest in self._ledger.release(run, published_round):
            self._updates.discard(digest)

    def forget(self, run: RunId) -> None:
        """Let go of everything that a run which has ended still holds here."""
        self.release(run, EVERY_ROUND)
        gateway = self._of_run.pop(run, None)
        if gateway is not None:
            gateway.forget(run)
        if gateway is not None and gateway not in self._of_run.values():
            kept = {labels: each for labels, each in self._gateways.items() if each is not gateway}
            self._gateways = kept

    def kept_runs(self) -> tuple[RunId, ...]:
        """Return the runs of which a key or an update is kept."""
        charges = self._ledger.charges()
        kept = {each.terms.run for each in charges if each.state is not ChargeState.RELEASED}
        return tuple(sorted(kept))

    def close(self) -> None:
        """Let another process open the ledger."""
        self._ledger.close()

    def _gateway(self, labels: tuple[str, ...]) -> Gateway:
        if labels not in self._gateways:
            site = site_of(self._config, self._task, labels, self.device)
            self._gateways[labels] = Gateway(site, self._ledger, self._updates, self._rules)
        return self._gateways[labels]


def rules_of(name: GatewayId, config: GatewayConfig) -> SiteRules:
    """Return what a gateway's settings say of plans."""
    return SiteRules(name, config.data_set, config.policy, config.hyperparameters)


def site_of(
    config: GatewayConfig, task: Task, labels: tuple[str, ...], device: torch.device
) -> Site:
    """Return what is trained on `device`, the data made ready; raise what is wrong with them."""
    return Site(
        task=task,
        model=task.build_model(labels).to(device),
        labels=labels,
        dataset=task.read(config.data, labels, config.state / FEATURES),
        specimens=task.specimens(labels),
        micro_batch=config.micro_batch,
        gradients=config.gradients,
    )


def verdict(
    name: GatewayId, config: GatewayConfig, task: Task, ledger: Ledger, asked: tuple[RunId, Plan]
) -> Verdict:
    """Return whether a run's plan is accepted, from what is public: settings, task and ledger."""
    run, plan = asked
    try:
        ledger.check_standing()  # else what was spent is not known
    except LedgerRolledBack as error:
        return Refused(error.reason, "", str(error))
    if (plan.task.name, plan.task.digest) != (task.name, task.digest()):
        return Refused(
            RefusalReason.TASK_MISMATCH,
            "task.digest",
            f"task.digest: the plan needs {plan.task.name} {plan.task.digest[:12]}, installed is "
            f"{task.name} {task.digest()[:12]}: install the version that the operator names",
        )
    if strange := sorted(set(config.task.labels) - set(plan.task.labels)):
        return Refused(
            RefusalReason.TASK_MISMATCH,
            "task.labels",
            f"task.labels: the plan has no {strange}, this gateway's [task] labels do: take them "
            "out there and in the data, or ask the operator for a plan that has them",
        )
    return rules_of(name, config).judge(run, plan, ledger)
