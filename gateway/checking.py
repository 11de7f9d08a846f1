"""What a gateway's start, and its first round, would meet: looked at without taking part.

Nothing is registered, so that a gateway which runs under the same name goes on undisturbed; nothing
is charged, and nothing of the data leaves. Each look calls what the real start calls.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.accounting import rounded_up
from common.clock import Clock, SystemClock
from common.config import each_of
from common.disk import SYSTEM_DISK, Disk
from common.errors import RequestError
from common.findings import Findings
from common.hyperparameters import Hyperparameters
from common.ids import GatewayId, RunId
from common.plan import Plan, Unit
from common.protocol import Countersignature
from common.surroundings import (
    GIB,
    MIB,
    look_at_certificate,
    look_at_clock,
    look_at_memory,
    look_at_proxy,
    look_at_software,
    look_at_space,
    look_at_state,
    look_at_way,
)
from common.wire import plan_from_bytes
from gateway.charges import LedgerInUse
from gateway.client import GrpcClient
from gateway.config import GatewayConfig
from gateway.device import device_here
from gateway.identity import gateway_identity
from gateway.lease import is_held
from gateway.ledger import Ledger
from gateway.ledger_marker import was_made
from gateway.policy import Refused
from gateway.presence import FILE, read_presence, runs
from gateway.rehearsal import Rehearsal, rehearse
from gateway.trust import PlanTrust, read_plan_keys
from gateway.workshop import (
    FEATURES,
    ledger_file,
    open_ledger,
    site_of,
    verdict,
)
from tasks.loading import load_task
from tasks.plan_file import draft_plan
from tasks.task import DataReport, Survey, Surveyor, Task

LEAST_SPACE, LEAST_MEMORY = 256 * MIB, GIB
CHECKED_RUN = RunId("plan-file")  # stands for the run that a plan's file is not yet


@dataclass(frozen=True)
class Asked:
    """What a check is to look at beside the settings."""

    plan: Path | None = None  # a plan's file
    run: str | None = None  # the name of a run, whose plan the orchestrator has
    offline: bool = False  # nothing beyond this machine
    rehearse: bool = True


class Checking:
    """One look at a gateway's settings and all that they name; the findings are in `findings`."""

    def __init__(
        self, settings: GatewayConfig, clock: Clock | None = None, disk: Disk = SYSTEM_DISK
    ) -> None:
        self.findings = Findings()
        self.settings = settings
        self._clock = clock or SystemClock()
        self._disk = disk
        self.name: GatewayId | None = None
        self.device: str | None = None
        self.obeys: list[str] = []
        self.survey: Survey | None = None
        self.rehearsal: Rehearsal | None = None
        self._federation, self._is_let_in = "", False

    async def look(self, asked: Asked) -> None:
        """Look at everything, from the settings to a step of training."""
        look_at_software(self.findings)
        self._look_at_identity()
        plan, countersigned = self._plan_in_file(asked.plan), None
        if not asked.offline and self._is_let_in and self.name is not None:
            countersigned, ordered = await self._ask(asked.run)
            plan = ordered or plan
        self._look_at_machine()
        task = self._look_at_data()
        self._look_at_state(countersigned)
        if task is None or self.name is None:
            return
        run, how = RunId(asked.run or CHECKED_RUN), None
        if plan is not None:
            how = self._look_at_plan(task, run, plan)
        fit = self.survey is not None and not self.survey.bad_lines
        if asked.rehearse and fit and (plan is None or how is not None):
            self._rehearse(task, plan, how)

    def _look_at_identity(self) -> None:
        """Say who this gateway is, and whom it obeys."""
        files = self.settings.tls
        found = look_at_certificate(self.findings, files, self._clock.wall())
        self._is_let_in = found is not None
        with self.findings.looking_at("identity"):
            identity = gateway_identity(files.certificate)
            self.name, self._federation = GatewayId(identity.name), identity.federation
        with self.findings.looking_at("trust"):
            self.obeys = sorted(read_plan_keys(self.settings.trust.plan_keys).values())
            self.findings.ok("trust", f"obeys plans that are signed by {', '.join(self.obeys)}")

    async def _ask(self, run: str | None) -> tuple[Countersignature | None, Plan | None]:
        """Call the orchestrator as a gateway does at its start, but for registering."""
        settings, plan = self.settings, None
        addresses = each_of(settings.address)
        look_at_way(self.findings, addresses)
        with self.findings.looking_at("orchestrator"):
            async with GrpcClient(settings.address, settings.tls, http2=settings.http2) as client:
                newest = await client.get_ledger_head(insecure_deterministic=False)
                self.findings.ok("orchestrator", f"takes calls of gateway {self.name}")
                look_at_proxy(self.findings, addresses)
                look_at_clock(self.findings, self._clock.wall(), client.date)
                if run is not None:
                    with self.findings.looking_at("signature"):
                        plan = await self._ordered(client, RunId(run))
                return newest, plan
        return None, None

    async def _ordered(self, client: GrpcClient, run: RunId) -> Plan:
        """Return a run's plan, whoever has signed it; raise where nobody did whom we obey."""
        config = await client.get_config(run)
        trust = PlanTrust(self._federation, lambda: read_plan_keys(self.settings.trust.plan_keys))
        signer = trust.signer(run, config)
        self.findings.ok("signature", f"run {run} is ordered by {signer}")
        return plan_from_bytes(config.plan)

    def _plan_in_file(self, path: Path | None) -> Plan | None:
        if path is not None:
            with self.findings.looking_at("plan"):
                return draft_plan(path)[0]
        return None

    def _look_at_machine(self) -> None:
        """Say what there is to train with."""
        with self.findings.looking_at("device"):
            self.device = device_here(self.settings.device).type
            said = f'trains on {self.device} (device = "{self.settings.device}")'
            self.findings.ok("device", said)
        threads, there = self.settings.threads, len(os.sched_getaffinity(0))
        if threads > there:
            self.findings.warn(
                "threads",
                f"threads = {threads} in the settings, this machine or container has {there} "
                "processors: more threads than these only wait for one another, set that many",
            )
        else:
            self.findings.ok("threads", f"{threads} for training, of {there} processors")
        look_at_memory(self.findings, LEAST_MEMORY)
        look_at_space(self.findings, self.settings.state, LEAST_SPACE, self._disk)

    def _look_at_data(self) -> Task | None:
        """Load the task and read every line of the data; return the task where it loads."""
        task, settings = None, self.settings
        with self.findings.looking_at("data"):
            task = load_task(settings.task.reference)
            self.survey = survey = self._surveyed(task)
            report = survey.report
            labels = ", ".join(f"{count} {label}" for label, count in report.per_label.items())
            units = ", ".join(f"{count} of unit {unit}" for unit, count in report.per_unit.items())
            found = f"{report.sentences} examples ({units or 'units not counted'}); {labels}"
            in_order = "in order are " if survey.bad_lines else ""
            said = f"{report.source}, {report.split}: {in_order}{found.rstrip('; ')}"
            self.findings.ok("data", said)
            if report.sentences:
                self._look_at_report(report)
        return task

    def _surveyed(self, task: Task) -> Survey:
        """Return what the data are like; where training refuses a line, name the next ones, too."""
        data, labels = self.settings.data, self.settings.task.labels
        try:
            return Survey(task.check(data, labels))
        except RequestError as refusal:
            survey = task.survey(data, labels) if isinstance(task, Surveyor) else None
            if survey is None or not survey.bad_lines:
                raise
            self.findings.problem("data", refusal)
            if survey.bad_lines > 1:
                said, kind = _bad_lines(survey), type(refusal).__name__
                self.findings.refusal("data", said, kind)
            return survey

    def _look_at_report(self, report: DataReport) -> None:
        never = [label for label, count in report.per_label.items() if not count]
        if never:
            self.findings.warn(
                "labels",
                f"{report.source} has no {', '.join(never)}, which [task] labels name: if the data "
                "write them otherwise, rename them there; else the others teach the model these",
            )
        if report.overlong:
            self.findings.warn(
                "data",
                f"{report.overlong} examples of {report.source} are longer than training reads: "
                "what comes after is left out; split them if it matters",
            )
        if report.shared:
            self.findings.warn(
                "data",
                f"{report.shared} examples of {report.source} belong to several persons: they are "
                "left out where the plan's unit is the person; name one person each to keep them",
            )

    def _look_at_state(self, countersigned: Countersignature | None) -> None:
        """Say whether the ledger is there, whole, free and as new as the orchestrator's word."""
        state = self.settings.state
        look_at_state(self.findings, state)
        self._look_at_lease(state)
        with self.findings.looking_at("ledger"), _ledger_in(state) as ledger:
            ledger.check_standing()
            if countersigned is not None:
                ledger.check_holds(countersigned)
            self.findings.ok("ledger", f"{ledger.head.sequence} records, none is missing")

    def _look_at_lease(self, state: Path) -> None:
        """Say whether a gateway runs on this folder, or one has left something behind."""
        presence, file = read_presence(state), ledger_file(state)
        if is_held(file):
            if presence is not None and presence.connected and runs(presence):
                said = f"process {presence.process} has it, which is this gateway at work"
                self.findings.ok("lock", said)
            else:
                self.findings.warn("lock", str(LedgerInUse(str(file))))
        elif presence is not None and presence.connected:
            self.findings.warn(
                "lock",
                f"{state / FILE} was left by process {presence.process}, which ended without "
                f"saying so; nothing holds {file}.lock, which stays where it is: start the gateway "
                "again, and delete nothing",
            )
        else:
            self.findings.ok("lock", f"no other process has {state}")

    def _look_at_plan(self, task: Task, run: RunId, plan: Plan) -> Hyperparameters | None:
        """Say whether the plan is accepted; return what it is trained with, if it is."""
        if self.name is None:
            return None
        with self.findings.looking_at("plan"), _ledger_in(self.settings.state) as ledger:
            found = verdict(self.name, self.settings, task, ledger, (run, plan))
            if isinstance(found, Refused):
                self.findings.refusal("plan", found.sentence, found.reason)
                return None
            spends = "" if found.projected is None else rounded_up(found.projected.pld)
            budget = self.settings.policy.epsilon_budget
            self.findings.ok(
                "plan",
                f"{plan.name}, {plan.rounds.count} rounds, is accepted: epsilon {spends} of "
                f"{budget:g} in all at delta {plan.privacy.delta} (unit {plan.privacy.unit})",
            )
            return found.effective
        return None

    def _rehearse(self, task: Task, plan: Plan | None, how: Hyperparameters | None) -> None:
        """Take a step on the data and say how long a round will take."""
        import torch  # noqa: PLC0415 - the settings' threads are for this process

        torch.set_num_threads(self.settings.threads)
        with self.findings.looking_at("rehearsal"), _features(self.settings) as settings:
            device, labels, unit = device_here(settings.device), settings.task.labels, Unit.EXAMPLE
            if plan is not None:
                labels, unit = plan.task.labels, plan.privacy.unit
            site = partial(site_of, settings, task, labels, device)
            self.rehearsal = found = rehearse(site, unit, how, self._clock.now)
            per = "as the plan has it" if how is not None else "in batches of about 64"
            self.findings.ok(
                "rehearsal",
                f"a step takes {found.seconds_per_step:.2g} s on {found.units} units {per}: expect "
                f"{found.seconds_per_round:.2g} s for a round's {found.steps_per_round} steps",
            )


def _bad_lines(survey: Survey) -> str:
    named = "; ".join(f"line {each.line}: {each.reason}" for each in survey.first_bad)
    more = survey.bad_lines - len(survey.first_bad)
    rest = f"; and {more} more" if more else ""
    return f"{survey.bad_lines} lines of {survey.report.source} are to be mended: {named}{rest}"


@contextmanager
def _ledger_in(state: Path) -> Iterator[Ledger]:
    """Lend the ledger to read; where none was made yet, an empty one."""
    if was_made(ledger_file(state)):
        ledger = open_ledger(state, None, exclusive=False)
    else:
        ledger = Ledger.open("sqlite://")
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def _features(settings: GatewayConfig) -> Iterator[GatewayConfig]:
    """Lend settings whose cache is the gateway's own, or where it has none yet, one that goes."""
    if (settings.state / FEATURES).is_dir():
        yield settings
        return
    with tempfile.TemporaryDirectory() as folder:
        yield settings.model_copy(update={"state": Path(folder)})
