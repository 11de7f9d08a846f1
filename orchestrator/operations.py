"""What a person, or the evaluator, asks the orchestrator."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from common import plan_signature, wire
from common.audit import ORCHESTRATOR, Action, Entry
from common.errors import ConflictError, NotFound, RequestError
from common.ids import is_name
from common.protocol import RunState
from common.signatures import RunSignatures
from common.threads import to_its_end
from common.transfer import Arriving
from common.weights import Weights
from orchestrator.admission import RunEnded, UnknownRun
from orchestrator.budgets import OF_AN_UPLOAD, NoMemoryLeft, mib_of
from orchestrator.events import GatewayReleased, PlanAccepted, RunCancelled, ScoresRecorded
from orchestrator.pace import Pace
from orchestrator.status import Observed, status_of
from orchestrator.weight_store import UnknownWeights

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable

    from common.audit import Facts
    from common.ids import GatewayId, PlanId, RunId, WeightsId
    from common.plan import Plan
    from common.protocol import Body, Chunk, RunStatus, ScoreSet
    from common.signatures import PlanSignature, SignedAcceptance
    from orchestrator.audit_log import AuditLog
    from orchestrator.budgets import Room
    from orchestrator.events import RunEvent
    from orchestrator.live_runs import LiveRun, LiveRuns
    from orchestrator.runs import Run
    from orchestrator.weight_store import WeightStore

PAUSE_S = 0.001  # for each gateway, between two states that a watcher is told


class InvalidName(RequestError):
    """A run's name cannot be one."""

    field = "run_id"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name[:80]!r} cannot name a run: take at most 63 lower-case letters, digits, "
            "'-' and '.', beginning and ending with a letter or digit"
        )


class PlanNotSigned(RequestError):
    """A run is to start whose plan nobody has signed."""

    field = "signature"

    def __init__(self) -> None:
        super().__init__(
            "the plan is not signed, and no gateway takes one that is not: start the run with "
            "`fedgate run start`, which signs it with the signing_key of operator.toml"
        )


class RunExists(ConflictError):
    """A run of that name was started with another plan."""

    def __init__(self, run_id: RunId) -> None:
        super().__init__(f"run {run_id!r} was started with another plan: choose another name")


class WeightsMissing(ConflictError):
    """The initial weights of a plan were not uploaded."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"initial_weights {digest} are not here: send them with UploadWeights")


class ModelTooLarge(RequestError):
    """The updates of a plan would be longer than this orchestrator takes."""

    field = "task.layout"

    def __init__(self, *, got: int, limit: int) -> None:
        super().__init__(
            f"an update of this plan has {got} bytes, limits.max_update_bytes is {limit}: "
            "raise it on the orchestrator"
        )


class NotInRun(NotFound):
    """A run has no gateway of that name."""

    def __init__(self, gateway: GatewayId, run: Run) -> None:
        super().__init__(
            f"run {run.run_id!r} has no gateway {gateway[:80]!r}: `fedgate run watch "
            f"{run.run_id} --format json` names those that it has"
        )


class Operations:
    """Runs are started, watched, scored and cancelled here."""

    def __init__(
        self,
        federation: str,
        runs: LiveRuns,
        weights: WeightStore,
        audit: AuditLog,
        room: Room,
        drive: Callable[[RunId], None],
    ) -> None:
        """Take weights within `room`; start the federation's runs with `drive`, which returns."""
        self._federation = federation
        self._runs = runs
        self._weights = weights
        self._audit = audit
        self._room = room
        self._drive = drive

    async def put_weights(
        self, body: Body, chunks: AsyncIterator[Chunk], actor: str = ORCHESTRATOR
    ) -> WeightsId:
        """Store a body of weights that `actor` sends; return its digest once it is durable."""
        room = self._room
        arriving, pace = Arriving(body, limit=room.limits.max_weights_bytes), Pace()
        room.disk.check(body.byte_length)
        async with room.memory.lent(OF_AN_UPLOAD):
            with self._weights.writing() as blob, self._runs.halting():
                while (chunk := await pace.next_of(chunks)) is not None:
                    arriving.take(chunk)
                    room.disk.check(len(chunk.data))
                    blob.write(chunk.data)
                arriving.finish()
                digest = await to_its_end(None, blob.keep)
                facts: Facts = {"weights": digest, "bytes": body.byte_length}
                self._audit.record(Entry(actor, Action.UPLOAD_WEIGHTS, facts))
                return digest

    async def start_run(
        self,
        run_id: RunId,
        plan_bytes: bytes,
        signature: PlanSignature | None,
        actor: str = ORCHESTRATOR,
    ) -> PlanId:
        """Start a run of that name, unless it runs already with the same plan; return its digest.

        Who is on record for it is `actor`. One that goes on since before plans were signed takes
        the signature.

        Raises:
            InvalidMessage: the bytes are not a plan.
            PlanNotSigned, PlanSignatureRefused: no gateway would take it.
            WeightsMissing, MalformedWeights: the initial weights are not here, or do not fit.
            NoMemoryLeft: other runs must end first.
            RunExists: the name was used for another plan.
        """
        if not is_name(run_id):
            raise InvalidName(run_id)
        digest, plan = wire.plan_id(plan_bytes), wire.plan_from_bytes(plan_bytes)
        if signature is None:
            raise PlanNotSigned
        plan_signature.check(signature, self._federation, run_id, digest)
        if not self._is_started(run_id, digest):
            await asyncio.to_thread(self._check_initial_weights, plan)
        if not self._is_started(run_id, digest):
            self._check_memory(plan)
            live = self._runs.create(run_id, plan, plan_bytes, digest, signature, actor)
            self._drive(run_id)
            if live.run.plan_digest != digest:  # a call that seemed to fail had stored it
                raise RunExists(run_id)
        self._runs.sign(self._runs.get(run_id), signature)
        return digest

    async def watch_run(self, run_id: RunId) -> AsyncGenerator[RunStatus]:
        """Yield the state of a run now and after every change, until it has ended.

        Changes of single gateways are told together where there are many: each is told within
        PAUSE_S for every gateway, or as soon as the run or its round moves on.
        """
        live = self._runs.get(run_id)
        while True:
            rung, told = live.changed.next, live.run
            status = self.status_of(live)
            yield status
            if status.has_ended:
                return
            await rung.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S * len(told.participants)):
                    while _stage(live.run) == _stage(told):
                        await live.changed.next.wait()

    def plan_bytes(self, run_id: RunId) -> bytes:
        """Return a run's plan as it was sent."""
        return self._runs.get(run_id).plan_bytes

    async def signatures(self, run_id: RunId) -> RunSignatures:
        """Return who ordered a run and what gateways accepted, as the journal has it."""
        live = self._runs.get(run_id)
        events = await asyncio.to_thread(self._runs.events, run_id)
        return RunSignatures(live.plan_bytes, live.run.plan_signature, acceptances(events))

    async def list_runs(self) -> tuple[RunStatus, ...]:
        """Return the state of every run, the newest first."""
        by_name = await asyncio.to_thread(self._ended)
        by_name |= {live.run.run_id: self.status_of(live) for live in self._runs.at_hand()}
        return tuple(by_name[name] for name in self._runs.names() if name in by_name)

    def cancel_run(self, run_id: RunId, actor: str = ORCHESTRATOR) -> RunStatus:
        """End a run, for `actor`; raise RunEnded if it has completed or failed."""
        live = self._runs.get(run_id)
        if live.run.state in {RunState.COMPLETED, RunState.FAILED}:
            raise RunEnded(live.run)
        self._runs.record(live, RunCancelled(), actor=actor)
        return self.status_of(live)

    def release_gateway(
        self, run_id: RunId, gateway: GatewayId, actor: str = ORCHESTRATOR
    ) -> RunStatus:
        """Take a gateway out of quarantine, from the next round on; raise RunEnded, NotInRun.

        One that is in none stays as it is.
        """
        live = self._runs.get(run_id)
        if gateway not in live.run.participants:
            raise NotInRun(gateway, live.run)
        if live.run.has_ended:
            raise RunEnded(live.run)
        if gateway in live.run.records.quarantined:
            self._runs.record(live, GatewayReleased(gateway), actor=actor)
        return self.status_of(live)

    def record_scores(self, run_id: RunId, scores: ScoreSet, actor: str = ORCHESTRATOR) -> None:
        """Record how weights of the run did; newer scores of a round and split replace older."""
        live = self._runs.get(run_id)
        if not self._weights.has(scores.weights):
            raise UnknownWeights(scores.weights)
        self._runs.record(live, ScoresRecorded(scores), actor=actor)

    def status_of(self, live: LiveRun) -> RunStatus:
        """Return the state of a run as its operator sees it."""
        remaining_s = 0.0 if live.run.has_ended else self._runs.remaining_s(live)
        traffic = (live.bytes_received, live.bytes_sent)
        return status_of(live.run, Observed(self._runs.presence.connected, remaining_s, *traffic))

    def _ended(self) -> dict[RunId, RunStatus]:
        observed = Observed(self._runs.presence.connected, 0.0, 0, 0)
        return {run.run_id: status_of(run, observed) for run in self._runs.ended()}

    def _is_started(self, run_id: RunId, digest: PlanId) -> bool:
        try:
            known = self._runs.get(run_id).run.plan_digest
        except UnknownRun:
            return False
        if known != digest:
            raise RunExists(run_id)
        return True

    def _check_memory(self, plan: Plan) -> None:
        limit = self._room.limits.max_runs_mib
        taken = {live.run.run_id: mib_of(live.run.plan) for live in self._runs.going_on()}
        if limit is not None and (need := mib_of(plan)) + sum(taken.values()) > limit:
            raise NoMemoryLeft(need=need, taken=taken, limit=limit)

    def _check_initial_weights(self, plan: Plan) -> None:
        layout, limit = plan.task.layout, self._room.limits.max_update_bytes
        if layout.byte_length > limit:
            raise ModelTooLarge(got=layout.byte_length, limit=limit)
        if not self._weights.has(plan.initial_weights):
            raise WeightsMissing(plan.initial_weights)
        Weights.from_bytes(self._weights.get(plan.initial_weights), layout)


def _stage(run: Run) -> tuple[object, ...]:
    """Return what changes where a run or its round moves on, and not with one gateway."""
    phase = None if run.round is None else run.round.phase
    return run.state, run.hold, run.opened, run.published, phase, run.scores


def acceptances(events: Iterable[RunEvent]) -> dict[str, SignedAcceptance]:
    """Return what each gateway of a run has signed, as the journal has it."""
    accepted = (event for event in events if isinstance(event, PlanAccepted))
    return {event.gateway: event.signed for event in accepted if event.signed is not None}
