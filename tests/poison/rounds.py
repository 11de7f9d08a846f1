"""Rounds of honest gateways into which bad updates are sent: a real orchestrator, real stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from common.bad_updates import UpdateNorm
from common.errors import FederationError
from common.ids import GatewayId, RunId, WeightsId
from common.plan import Participant, Rounds, ServerOptimizer, TaskSpec
from common.protocol import Body, Chunk, UpdateHeader, UpdateKey
from common.randomness import KEY_BYTES, RandomStream
from common.transfer import digest_of
from common.update_form import Update, UpdateForm
from common.weights import Weights
from common.wire_formats import WireFormat
from orchestrator.config import Limits
from orchestrator.orchestrator import Orchestrator
from orchestrator.verdicts import reason_of
from tests.fakes import EFFECTIVE, TASK_DIGEST, FakeClock, chunks, plan_of
from tests.poison.cases import LAYOUT, Case, Good, drawn
from tests.signing import order

RUN = RunId("r")
HONEST = ("ada", "bea", "cyd")
UNITS = (100, 200, 350)
INITIAL = Weights(LAYOUT, np.linspace(-1.0, 1.0, LAYOUT.size).astype(np.float32))
BAD = 40  # gateways that send nothing good
DEADLINE_S = 60.0


@dataclass
class Found:
    """What has come of the cases so far."""

    cases: int = 0
    rounds: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    escaped: list[str] = field(default_factory=list)  # cases that were counted, or answered wrongly
    wrong_means: list[int] = field(default_factory=list)  # rounds that others than the honest moved

    @property
    def is_good(self) -> bool:
        return not self.escaped and not self.wrong_means


class Poisoned:
    """One run; every round of it takes as many bad updates as there are bad gateways."""

    def __init__(self, folder: Path, wire_format: WireFormat, seed: int, rounds: int) -> None:
        folder.mkdir(parents=True)
        self.found = Found()
        self._draw = np.random.default_rng(seed)
        self._form = UpdateForm(LAYOUT, wire_format)
        self._clock = FakeClock()
        self._orchestrator = Orchestrator(
            folder,
            f"sqlite:///{folder / 'journal.db'}",
            federation="acme",
            clock=self._clock,
            limits=Limits(),
        )
        self._bad = tuple(f"bad-{n}" for n in range(BAD))
        self._weights = INITIAL.values
        self._plan = self._plan_of(rounds)

    def _plan_of(self, rounds: int):
        units = {**dict(zip(HONEST, UNITS, strict=True)), **dict.fromkeys(self._bad, 5000)}
        members = (Participant(gateway=g, declared_units=n) for g, n in units.items())
        return plan_of(
            *HONEST,
            task=TaskSpec(name="toy", digest=TASK_DIGEST, labels=("x",), layout=LAYOUT),
            initial_weights=INITIAL.digest,
            participants=tuple(members),
            rounds=Rounds(
                count=rounds,
                maximum=2 * rounds,
                quorum=len(HONEST),
                deadline_s=DEADLINE_S,
                retry_pause_s=0.0,
            ),
            server=ServerOptimizer(),
            update_norm=UpdateNorm(),
            wire_format=self._form.wire_format,
        )

    async def __aenter__(self):
        orchestrator = self._orchestrator.start(restart_grace_s=1.0)
        data = INITIAL.to_bytes()
        await orchestrator.operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data))
        self._digest = await orchestrator.operations.start_run(*order(RUN, self._plan))
        for name in map(GatewayId, (*HONEST, *self._bad)):
            orchestrator.runs.set_connected(name, is_connected=True)
            orchestrator.accept_plan(name, RUN, self._digest, EFFECTIVE)
        return self

    async def __aexit__(self, *_) -> None:
        await self._orchestrator.close()

    async def round(self, number: int, case: Callable[[Good], Case] = drawn) -> None:
        """Send a round's updates, the bad ones between the honest; hold what comes of it."""
        await self._until(lambda run: run.round is not None and run.round.number == number)
        state = self._run.round
        updates = {name: self._honest() for name in HONEST}
        first, *others = HONEST
        await self._send(first, number, updates[first].to_bytes())
        if state.norm_bound is not None:  # from the second round on
            for name in self._bad:
                await self._try(name, number, case(self._good(updates, state.norm_bound)))
        for name in others:
            await self._send(name, number, updates[name].to_bytes())
        self._clock.advance(DEADLINE_S)  # for those of whom nothing whole has come
        await self._until(lambda run: run.published == number)
        self.found.rounds += 1
        if self._run.weights != self._mean(updates):
            self.found.wrong_means.append(number)

    async def _try(self, name: str, number: int, case: Case) -> None:
        """Send one bad update; note where what comes of it is not what must."""
        found = self.found
        found.cases += 1
        found.kinds[case.kind] += 1
        try:
            await self._send(name, number, case.data, case.header)
        except FederationError as error:
            reason, answered = reason_of(error), type(error).__name__
        else:
            reason, answered = None, "a receipt"
        kept = self._run.round.refused.get(GatewayId(name))
        recorded = None if kept is None else kept.reason
        if reason is None:
            found.errors[answered] += 1
        else:
            found.reasons[reason] += 1
        is_expected = reason in case.verdicts if case.verdicts else answered == case.error
        if not is_expected or recorded != reason:
            what = f"round {number}, {name}: {case.kind} was answered {answered}, on record"
            found.escaped.append(f"{what} {recorded}: {case.data.hex()}")

    def _good(self, updates: dict[str, Update], bound: float) -> Good:
        return Good(
            form=self._form,
            data=self._honest().to_bytes(),
            others=updates[HONEST[0]].to_bytes(),
            bound=bound,
            draw=self._draw,
        )

    def _honest(self) -> Update:
        values = self._draw.normal(scale=0.1, size=LAYOUT.size).astype(np.float32)
        return Update.of(self._form, values, RandomStream(self._draw.bytes(KEY_BYTES)))

    async def _send(self, name: str, number: int, data: bytes, header=None) -> None:
        declared = dict(header or {})
        body = Body(
            WeightsId(declared.get("digest", digest_of(declared.get("digest_of", data)))),
            declared.get("byte_length", len(data)),
        )
        sent = UpdateHeader(
            UpdateKey(RUN, max(1, number + declared.get("later_by", 0))),
            declared.get("plan_digest", self._digest),
            declared.get("parent", self._run.weights),
            body,
        )
        gateway = GatewayId(name)
        await self._orchestrator.submissions.submit(gateway, sent, self._pieces(data))

    async def _pieces(self, data: bytes) -> AsyncIterator[Chunk]:
        """Yield the data in up to five chunks."""
        cuts = self._draw.integers(0, len(data) + 1, size=self._draw.integers(5))
        edges = [0, *sorted(int(cut) for cut in cuts), len(data)]
        for start, stop in pairwise(edges):
            if stop > start:
                yield Chunk(start, data[start:stop])

    @property
    def _run(self):
        return self._orchestrator.runs.get(RUN).run

    async def _until(self, condition) -> None:
        live = self._orchestrator.runs.get(RUN)
        while True:
            rung = live.changed.next
            if condition(live.run):
                return
            await rung.wait()

    def _mean(self, updates: dict[str, Update]) -> WeightsId:
        """Return the weights that the honest updates alone make: all of them, and nothing else."""
        everyone = sum(self._plan.weight(p.gateway) for p in self._plan.participants)
        weights = {name: self._plan.weight(name) for name in updates}
        terms = (weights[n] / everyone * u.values.astype("f8") for n, u in updates.items())
        steps = sum(np.rint(term * 2.0**40).astype(np.int64) for term in terms)
        mean = steps * (everyone / sum(weights.values()) * 2.0**-40)
        self._weights = (self._weights + mean).astype(np.float32)
        return Weights(LAYOUT, self._weights).digest


async def poisoned(folder: Path, wire_format: WireFormat, seed: int, cases: int) -> Found:
    """Send about `cases` bad updates; return what came of them."""
    rounds = 1 + -(-cases // BAD)
    async with Poisoned(folder, wire_format, seed, rounds) as run:
        for number in range(1, rounds + 1):
            await run.round(number)
        return run.found
