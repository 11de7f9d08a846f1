"""One federation, one seed: an orchestrator, its gateways, an operator, and what befalls them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

from common.errors import FederationError
from common.retry import Backoff
from common.update_form import Update
from common.wire_formats import WireFormat
from gateway.agent import Agent
from gateway.config import GatewayConfig
from gateway.policy import Policy
from gateway.workshop import Workshop
from orchestrator.config import Limits
from orchestrator.orchestrator import Orchestrator
from tasks.task import DataConfig
from tests.signing import FEDERATION, TRUST
from tests.simulation.calls import Link
from tests.simulation.checks import Checks
from tests.simulation.client import SimulatedClient
from tests.simulation.database import Databases
from tests.simulation.disk import ProcessDisk, SimulatedDisk
from tests.simulation.faults import HARMLESS, Fault, Faults
from tests.simulation.history import History, Trained
from tests.simulation.loop import PROCESS, Crashed, Process, SimulatedClock, SimulatedLoop, Stuck
from tests.simulation.machines import Machine, templates
from tests.simulation.network import Network
from tests.simulation.operator import operate
from tests.simulation.storms import ORCHESTRATOR, STRIKES, end_process
from tests.simulation.training import TASK, TaskLabels, drawn_plan

NAMES = ("alder", "birch", "cedar", "dogwood", "elm")
GRACE_S = 10.0
STORM_S = 120.0
SETTLE_S = 90.0
MOST_STEPS = 400_000
KEPT = 0.25  # of the runs have updates kept


STORES_FAIL = (
    *(Fault.EIO, Fault.DISK_FULL, Fault.DATABASE_AWAY),
    *(Fault.COMMIT_FAILED_BEFORE, Fault.COMMIT_FAILED_AFTER),
)


class Federation:
    """Builds everything from a seed and runs it to its end."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.random = Random(f"federation {seed}")
        self.faults = Faults(Random(f"faults {seed}"))
        self.loop = SimulatedLoop(Random(f"order {seed}"))
        self.loop.set_exception_handler(self._unhandled)
        self.history = History(self.loop.time, folder)
        self.network = Network(self.loop, Random(f"network {seed}"), self.faults, self.history)
        self.faults.time = self.loop.time
        self.faults.crash = self.crash
        self.databases = Databases(self.faults)
        self.databases.committed = self._committed
        self.loop.thread_delay = self._thread_delay
        self.names = NAMES[: self.random.randint(3, 5)]
        wire_format = Random(f"wire format {seed}").choice(tuple(WireFormat))
        keep = Random(f"keep updates {seed}").random() < KEPT
        drawn = drawn_plan(self.random, self.names, wire_format)
        self.plan = drawn.model_copy(update={"keep_updates": keep})
        self.machines = {n: self._machine(n) for n in (ORCHESTRATOR, *self.names)}
        self.checks = Checks(self.history, self.plan, folder, self._calm_s)
        self.databases.trained = self.checks.register.updates
        self.checks.disks = {name: each.disk for name, each in self.machines.items()}
        self.network.links = {name: Link() for name in self.names}

    def _machine(self, name: str) -> Machine:
        rate = 1.0
        if Fault.CLOCK_RATE in self.faults.on:
            rate = self.random.uniform(0.9, 1.1)
            self.faults.count(Fault.CLOCK_RATE)
        disk = SimulatedDisk(Random(f"disk {self.seed} {name}"), self.faults)
        clock = SimulatedClock(self.loop, start=self.random.uniform(0.0, 1e6), rate=rate)
        folder = self.folder / name
        folder.mkdir(parents=True)
        for file, data in templates()[ORCHESTRATOR if name == ORCHESTRATOR else ""].items():
            (folder / file).write_bytes(data)
        return Machine(name, disk, clock)

    # what runs

    def run(self) -> None:
        """Live through the storm, then the quiet after it; check all at the end."""
        try:
            self.loop.run_until_complete(self._main())
        except Stuck:
            self.history.violated("I9", "nothing is left that could happen")
        for machine in self.machines.values():
            for process in machine.processes:
                process.kill()
        self.loop.world.kill()
        self.loop.close()

    async def _main(self) -> None:
        self.start(ORCHESTRATOR)
        for name in self.names:
            self.loop.call_later(self.random.uniform(0.0, 3.0), self.start, name)
        operating = asyncio.create_task(operate(self))
        storms = [asyncio.create_task(self._storm(kind)) for kind in self.faults.periods]
        await self._until_end(STORM_S)
        self._calm()
        for storm in storms:
            storm.cancel()
        rounds = self.plan.rounds
        await self._until_end(60.0 + 2 * rounds.count * (rounds.deadline_s + 60.0))
        self._ends_well()
        for name in self.names:  # whatever they could not do before, they do now
            end_process(self, name, power=False)
        await asyncio.sleep(SETTLE_S)
        operating.cancel()
        self.checks.at_end(list(self.names))

    def _ends_well(self) -> None:
        """Check I9: the run has completed, or a fault of a disk or database explains why not."""
        register = self.checks.register
        is_explained = any(self.faults.counts[kind] for kind in STORES_FAIL)
        is_given_up = "refused the plan" in register.why or "rounds.maximum" in register.why
        if register.end == "RunFailed" and is_given_up and is_explained:
            return
        if register.end != "RunCompleted":
            state = register.why or "it goes on"
            self.history.violated("I9", f"the run has not completed: {state}")

    async def _until_end(self, seconds: float) -> None:
        """Return once the run has ended, or after a while."""
        until = self.loop.time() + seconds
        while self.loop.time() < until and not self.checks.register.end:
            if self.loop.steps > MOST_STEPS:
                self.history.violated("I9", "it goes round and round")
                return
            await asyncio.sleep(1.0)

    def start(self, name: str) -> None:
        """Start a machine's process; an older one there may still live."""
        machine = self.machines[name]
        machine.started += 1
        process = Process(self.loop, f"{name}-{machine.started}")
        machine.processes.append(process)
        self.history.note(f"{process} starts")
        work = self._orchestrate if name == ORCHESTRATOR else self._train
        process.spawn(self._whole_life(machine, process, work), process.name)

    async def _whole_life(self, machine: Machine, process: Process, work) -> None:
        """Run a process' program; when it ends, the process does, and another takes its place."""
        try:
            await work(machine, process)
        except HARMLESS as error:
            self.history.note(f"{process} ends: {error!r:.200}")
        except FederationError as error:
            self.history.note(f"{process} ends, refused: {error!r:.200}")
            if machine.name == ORCHESTRATOR:
                self.history.violated("no bug", f"{process} ended with {error!r:.300}")
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a bug
            self.history.bug(process, error)
        self.end(machine, process)

    def end(self, machine: Machine, process: Process) -> None:
        """End a process; if it was the newest of its machine, start another after a while."""
        was_newest = process is machine.newest
        if self.network.serving is process:
            self.network.serving = None
        process.kill()
        if was_newest:
            self.loop.world.call_later(self.random.uniform(0.1, 6.0), self.start, machine.name)

    async def _orchestrate(self, machine: Machine, process: Process) -> None:
        state = self.folder / ORCHESTRATOR
        orchestrator = Orchestrator(
            state,
            f"sqlite:///{state / 'journal.db'}",
            federation=FEDERATION,
            clock=machine.clock,
            limits=Limits(),
            disk=ProcessDisk(machine.disk, process, self.faults),
        )
        orchestrator.start(restart_grace_s=GRACE_S)
        self.network.programs[process] = orchestrator
        if process is machine.newest:
            self.network.serving = process
        await orchestrator.runs.halted.wait()
        if self.network.serving is process:
            self.network.serving = None
        failure = orchestrator.runs.failure
        await orchestrator.close()
        raise failure

    async def _train(self, machine: Machine, process: Process) -> None:
        config = GatewayConfig.model_construct(
            state=self.folder / machine.name,
            data_set="default",
            data=DataConfig(corpus="rows", site=machine.name),
            policy=Policy(epsilon_budget=1000.0, allow_kept_updates=True),
            task=TaskLabels(),
        )
        disk = ProcessDisk(machine.disk, process, self.faults)
        workshop = Workshop(machine.name, config, TASK, None, disk)
        client = SimulatedClient(self.network, machine.name, process)
        await Agent(workshop, client, Backoff(), lambda _: None, TRUST).run()

    # what befalls them

    async def _storm(self, kind: Fault) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1.0 / self.faults.periods[kind]))
            if STRIKES[kind](self):
                self.faults.count(kind)
                self.history.note(f"FAULT {kind}")

    def _calm(self) -> None:
        """No fault from here on; what was broken is mended."""
        self.history.note("quiet")
        self.faults.is_quiet = True
        self.databases.away.clear()
        for machine in self.machines.values():
            machine.disk.is_full = False
            for process in machine.processes:
                process.paused_until = 0.0
        for link in self.network.links.values():
            link.slow_s = 0.0
            link.blocked = {True: 0.0, False: 0.0}

    def crash(self, process: Process, *, power: bool) -> None:
        """End a process as kill -9 does, or its whole machine as a loss of power does."""
        name = process.name.rpartition("-")[0]
        machine = self.machines[name]
        self.history.note(f"CRASH of {process}" + (", power lost" if power else ""))
        newest = machine.newest
        if power:
            for each in machine.processes:
                each.kill()
            machine.disk.lose_power()
            if name == ORCHESTRATOR:
                self.checks.after_power_loss()
        else:
            process.kill()
        if self.network.serving is not None and not self.network.serving.alive:
            self.network.serving = None
        if newest is not None and not newest.alive:
            self.loop.world.call_later(self.random.uniform(0.1, 8.0), self.start, name)

    def _thread_delay(self) -> float:
        if self.faults.strikes(Fault.SLOW_THREAD):
            return self.random.uniform(1.0, 15.0)
        return 10.0 ** self.random.uniform(-4.0, 0.0)

    # what is seen

    def _committed(self, process: Process, path: Path) -> None:
        if path.name == "journal.db":
            self.checks.committed(self.loop.time(), process.name)

    def trained(self, run, charged, values) -> None:
        process = PROCESS.get()
        update = Update.of(run.form, values, charged.rounding)
        charge = charged.charge
        entry = Trained(
            self.loop.time(),
            run.terms.gateway,
            charge.terms.run,
            charge.round,
            charge.parent,
            update.digest,
            tuple(map(float, update.values)),
        )
        if process is not None and process.alive:
            self.history.add(entry)

    def _calm_s(self) -> float:
        return self.loop.time() - self.faults.last_at

    def _unhandled(self, loop, context) -> None:
        error = context.get("exception")
        if error is None or isinstance(error, (Crashed, *HARMLESS, FederationError)):
            return
        self.history.note(f"unhandled: {context['message']}: {error!r}")
        self.history.violated("no bug", f"{context['message']}: {error!r:.300}")
