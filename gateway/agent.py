"""The gateway's loop: register, watch, work, submit, wait; through restarts of either side.

Two tasks run side by side. One listens: it keeps a lease and a Watch stream open and leaves the
newest word on each run in a mailbox. The other works on the newest word. Training therefore goes
on while the connection is down, and word that has been overtaken is never worked on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from common.errors import ConflictError, FederationError, UnavailableError
from common.mailbox import Mailbox
from common.plan import Plan
from common.plan_signature import PlanSignatureRefused
from common.protocol import (
    PROTOCOL_VERSION,
    Body,
    Decline,
    Effective,
    Refusal,
    RefusalReason,
    Review,
    Stop,
    StopReason,
    Train,
    UpdateHeader,
    UpdateKey,
    Versions,
    Wait,
)
from common.retry import wait_after
from common.threads import to_its_end
from common.version import SOFTWARE_VERSION
from common.weights import Weights
from common.wire import plan_from_bytes
from gateway.charges import LedgerUnreadable
from gateway.countersignatures import CountersignatureForged, OrchestratorKeyChanged
from gateway.gateway import DeliveredWeights, TrainRound
from gateway.policy import Accepted, Refused
from gateway.record_watch import RecordWatch
from gateway.transfers import fetch, send
from gateway.watching import Answered, Outcome, Phase, Several
from gateway.workshop import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from common.client import OrchestratorClient
    from common.ids import PlanId, RunId
    from common.protocol import RunNews
    from common.retry import Backoff
    from common.update_form import Update
    from gateway.gateway import Gateway
    from gateway.policy import Verdict
    from gateway.trust import PlanTrust
    from gateway.watching import Watcher
    from gateway.workshop import Workshop

LOG = structlog.get_logger()
DISTRUST = (CountersignatureForged, OrchestratorKeyChanged)  # nothing more is done for it


class Superseded(ConflictError):
    """A newer process registered as this gateway."""

    def __init__(self) -> None:
        super().__init__(
            "another process with this gateway's certificate has registered after this one: "
            "run only one process for a gateway"
        )


class AnotherPlan(ConflictError):
    """The orchestrator offered one plan and delivered another."""

    reason = RefusalReason.EQUIVOCATION

    def __init__(self, *, offered: PlanId, got: PlanId) -> None:
        super().__init__(
            f"the orchestrator offered plan {offered[:12]} and delivered {got[:12]}: "
            "neither is answered; ask its operator"
        )


def reason_of(error: Exception) -> RefusalReason:
    """Return the reason code of an error of ours; of any other only that something failed.

    Others have a `reason` too, such as UnicodeDecodeError: it may quote the data.
    """
    reason = getattr(error, "reason", None) if isinstance(error, FederationError) else None
    return reason if isinstance(reason, RefusalReason) else RefusalReason.FAILED


class Agent:
    """One gateway's process: dials out, does what it is told, keeps its bytes until published."""

    def __init__(
        self,
        workshop: Workshop,
        client: OrchestratorClient,
        backoff: Backoff,
        connected: Callable[[bool], None],
        trust: PlanTrust,
        *beside: Callable[[], Coroutine[None, None, None]],
        watcher: Watcher | None = None,
    ) -> None:
        """Work with `workshop` on the plans of those whom `trust` names.

        `connected` is told whenever the stream opens or breaks, and `watcher` of rounds as well.
        What is to go on `beside` the work ends with it, and it with that.
        """
        self._workshop = workshop
        self._client = client
        self._backoff = backoff
        self._connected = connected
        self._watcher: Watcher = watcher or Several()
        self._trust = trust
        self._beside = beside
        self._news: Mailbox[RunId, RunNews] = Mailbox()
        self._plans: dict[RunId, tuple[PlanId, Plan]] = {}
        self._record = RecordWatch(workshop, client)

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            Superseded: a newer process of this gateway took over.
            RequestError, ConflictError: the orchestrator refuses this gateway for good, or signs
                what it should not.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen())
                tasks.create_task(self._work())
                tasks.create_task(self._record.look_when_due())
                for each in self._beside:
                    tasks.create_task(each())
        except ExceptionGroup as group:  # not `except*`: Python 3.11.2 wraps what it raises
            ours, others = group.split(FederationError)
            if ours is None or others is not None:
                raise
            raise ours.exceptions[0] from None

    async def _listen(self) -> None:
        """Keep a lease and a stream open; leave the newest word on each run.

        The newest countersigned head is learned before any word: a ledger that lacks it spends
        nothing more.
        """
        waits = self._backoff.waits()
        while True:
            try:
                await self._watch_once()
                waits = self._backoff.waits()
                wait_s = next(waits)
            except UnavailableError as error:
                LOG.warning("orchestrator_unavailable", why=str(error))
                wait_s = wait_after(error, waits)
            finally:
                self._note_connected(False)
            await asyncio.sleep(wait_s)

    async def _watch_once(self) -> None:
        tasks = dict(self._workshop.tasks)
        registration = await self._client.register(
            Versions(PROTOCOL_VERSION, SOFTWARE_VERSION, tasks)
        )
        LOG.info("registered", gateway=registration.gateway)
        seeded = self._workshop.insecure_deterministic
        newest = await self._client.get_ledger_head(insecure_deterministic=seeded)
        self._workshop.confirm(newest)
        await self._record.look()
        self._note_connected(True)
        async for news in self._client.watch(registration.lease, self._workshop.kept_runs()):
            if news.instruction == Stop(StopReason.SUPERSEDED):
                raise Superseded
            await self._news.room(news.run_id)
            self._news.put(news.run_id, news)

    def _note_connected(self, connected: bool) -> None:  # noqa: FBT001 - as both take it
        self._watcher.connected(connected)
        self._connected(connected)

    async def _work(self) -> None:
        """Do what the newest word says; do it again after the orchestrator was away."""
        waits = self._backoff.waits()
        while (word := await self._news.get()) is not None:
            run, news = word
            try:
                await self._act(news)
                waits = self._backoff.waits()
            except (UnavailableError, LedgerUnreadable) as error:  # a disk may come back too
                LOG.warning("will_try_again", run=run, why=str(error))
                await asyncio.sleep(wait_after(error, waits))
                self._news.put_back(run, news)
            except DISTRUST:
                raise
            except FederationError as error:
                LOG.warning("refused", run=run, why=str(error))

    async def _act(self, news: RunNews) -> None:
        if news.published_round:
            self._workshop.release(news.run_id, news.published_round)
        match news.instruction:
            case Review(plan_digest):
                await self._review(news.run_id, plan_digest)
            case Train() as train:
                with self._watcher.round(UpdateKey(news.run_id, train.round), train):
                    await self._train(news.run_id, train)
            case Stop(StopReason.UNKNOWN_RUN):
                LOG.warning("run_unknown", run=news.run_id)  # it may come back: nothing is erased
            case Stop(reason):
                LOG.info("run_ended", run=news.run_id, how=reason)
                self._workshop.forget(news.run_id)
                self._plans.pop(news.run_id, None)
                self._record.forget(news.run_id)
            case Wait():
                pass
        self._record.note_published(news.run_id, news.published_round)

    async def _review(self, run: RunId, plan_digest: PlanId) -> None:
        """Read a plan and answer it, before anything is drawn or charged."""
        verdict = await self._verdict(run, plan_digest)
        if isinstance(verdict, Accepted):
            seeded = self._workshop.insecure_deterministic
            answer: Effective | Refusal = Effective(verdict.effective, seeded)
            self._note_accepted(run, verdict)
        else:
            answer = Refusal(verdict.reason, verdict.field)
            LOG.warning("plan_refused", run=run, why=verdict.sentence)
        await self._client.accept_plan(run, plan_digest, answer)

    def _note_accepted(self, run: RunId, verdict: Accepted) -> None:
        """Tell the site's own operator what the run comes to, and for whom that holds."""
        spent, privacy = verdict.projected, self._plans[run][1].privacy
        epsilon = spent.pld if spent else None
        kept = self._plans[run][1].keep_updates
        LOG.info(
            "plan_accepted",
            run=run,
            epsilon=epsilon,
            delta=privacy.delta,
            updates_are_kept=kept,
            unit=str(privacy.unit),
            relation=str(privacy.relation),
        )

    async def _verdict(self, run: RunId, plan_digest: PlanId) -> Verdict:
        """Decide on a plan, and tell who looks on."""
        answered = await self._judged(run, plan_digest)
        self._watcher.answered(answered)
        return answered.verdict

    async def _judged(self, run: RunId, plan_digest: PlanId) -> Answered:
        """Decide on a plan; who has ordered it comes before anything that it says."""
        config = await self._client.get_config(run)
        if config.plan_digest != plan_digest:
            raise AnotherPlan(offered=plan_digest, got=config.plan_digest)
        try:
            signer = self._trust.signer(run, config)
        except PlanSignatureRefused as error:
            return Answered(run, plan_digest, Refused(error.reason, "", str(error)))
        LOG.info("plan_is_signed", run=run, by=signer)
        plan = plan_from_bytes(config.plan)
        verdict = await to_its_end(None, lambda: self._workshop.review(run, plan, plan_digest))
        if isinstance(verdict, Accepted):
            self._plans[run] = (plan_digest, plan)
        return Answered(run, plan_digest, verdict, signer, plan)

    async def _train(self, run: RunId, train: Train) -> None:
        """Train a round, or find its update again, and send it until it is counted."""
        if train.remaining_s <= 0:
            LOG.info("too_late", run=run, round=train.round)  # nothing is charged for a lost round
            self._watcher.ended(Outcome.TOO_LATE)
            return
        key = UpdateKey(run, train.round)
        refusal = await self._why_not(run, train)
        gateway = self._workshop.gateway(run)
        if refusal is not None or gateway is None:
            await self._decline(key, refusal or Refusal(RefusalReason.FAILED))
            return
        try:
            update = await self._update(gateway, run, train)
        except UnavailableError:
            raise
        except (FederationError, *FAILURES) as error:
            LOG.exception("round_declined", run=run, round=train.round)
            await self._decline(key, Refusal(reason_of(error)))
            return
        await self._send(key, train, update)

    async def _why_not(self, run: RunId, train: Train) -> Refusal | None:
        """Return why a round is not trained; what was begun before a pause is finished."""
        if self._workshop.pause.is_on and self._workshop.begins(run, train.round):
            LOG.info("round_declined_while_paused", run=run, round=train.round)
            return Refusal(RefusalReason.PAUSED)
        if run in self._plans:
            return None
        LOG.info("plan_read_again", run=run)
        digest = (await self._client.get_config(run)).plan_digest
        verdict = await self._verdict(run, digest)
        if not isinstance(verdict, Refused):
            return None
        LOG.warning("round_declined", run=run, round=train.round, why=verdict.sentence)
        return Refusal(verdict.reason, verdict.field)

    async def _decline(self, key: UpdateKey, refusal: Refusal) -> None:
        await self._client.decline(Decline(key, refusal))
        self._watcher.ended(Outcome.DECLINED)

    async def _update(self, gateway: Gateway, run: RunId, train: Train) -> Update:
        _, plan = self._plans[run]
        limit = plan.task.layout.byte_length
        with self._watcher.phase(Phase.FETCH):
            data = await fetch(self._client, train.weights, self._backoff, limit=limit)
        self._watcher.moved(Phase.FETCH, len(data))
        weights = Weights.from_bytes(data, plan.task.layout, digest=train.weights.digest)
        parent = DeliveredWeights(announced=train.weights.digest, weights=weights)
        LOG.info("training", run=run, round=train.round)
        with self._watcher.phase(Phase.TRAIN):
            return await to_its_end(
                None, lambda: gateway.fed_round(TrainRound(run, train.round, parent))
            )

    async def _send(self, key: UpdateKey, train: Train, update: Update) -> None:
        data = update.data
        plan_digest, _ = self._plans[key.run_id]
        body = Body(update.digest, len(data))
        head = self._workshop.ledger_head
        header = UpdateHeader(key, plan_digest, train.weights.digest, body, head)
        with self._watcher.phase(Phase.SEND):
            receipt = await send(self._client, header, data)
        self._watcher.moved(Phase.SEND, len(data))
        self._workshop.confirm(receipt.countersigned)
        LOG.info(
            "set_aside_in_quarantine" if receipt.set_aside else "counted",
            run=key.run_id,
            round=key.round,
            update=update.digest[:12],
        )
        self._watcher.ended(Outcome.SET_ASIDE if receipt.set_aside else Outcome.COUNTED)
