"""Whether a run's model is what its lineage says: signed, chained, and made again where it can be.

Where the updates were kept, each round is averaged and stepped again by the orchestrator's own
code and compared bit for bit. Where they were not, that the weights are the mean of the named
updates is stated by whoever signed, and not proven.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from cli.evidence import check
from common.errors import RequestError
from common.ids import WeightsId
from common.lineage import LineageBroken
from common.protocol import Body
from common.reached import unheard
from common.transfer import CHUNK_BYTES, digest_of
from common.weights import check_header
from orchestrator.aggregation import Accumulator
from orchestrator.database import open_database
from orchestrator.decoding import Decoded
from orchestrator.events import RoundPublished
from orchestrator.fencing import Fence
from orchestrator.norms import factor
from orchestrator.publishing import complete, publish
from orchestrator.rounds import Phase, Round
from orchestrator.running_check import RunningCheck
from orchestrator.runs import Run, begin
from orchestrator.weight_store import WeightStore

if TYPE_CHECKING:
    from cli.evidence import Evidence
    from common.lineage import Lineage, ModelStatement, RoundStatement
    from common.plan import Plan
    from common.reached import Reached

Fetch = Callable[[WeightsId], Awaitable[memoryview]]


class How(StrEnum):
    """How far a step of a lineage was proven, beyond its signature, its place and its digests."""

    REPLAYED = "replayed"  # made again from what went into it, the same bit for bit
    STATED = "stated"  # by whoever signed: what went into it was not kept


@dataclass(frozen=True)
class RoundProof:
    """What was proven of one round."""

    round: int
    how: How
    updates: int


@dataclass(frozen=True)
class ModelProof:
    """A run's lineage that was found whole, and what of it was made again."""

    run: str
    public_key: str
    plan_signed_by: str | None  # Ed25519 public key of who ordered it; None: nobody signed
    rounds: tuple[RoundProof, ...]
    model: WeightsId | None
    model_sha256: str


@dataclass(frozen=True)
class Story:
    """A run as its orchestrator tells it."""

    evidence: Evidence
    published: int
    model: WeightsId | None


async def prove(
    story: Story, fetch: Fetch, key: str | None = None, reached: Reached = unheard
) -> ModelProof:
    """Return what can be proven of a run's published models.

    Args:
        story: what the orchestrator says.
        fetch: returns stored bytes by digest; raises a RequestError where they are not these.
        key: who must have signed; None: whoever signed the first statement.
        reached: hears after each round how many are proven, and of how many.

    Raises:
        PlanSignatureRefused: whoever is said to have ordered the run did not order this.
        LineageBroken: something is not as it was signed; the first such thing is named.
    """
    checked = check(story.evidence, key)
    lineage = checked.lineage
    check_complete(lineage, story)
    with _store() as store:
        replay = Replay(begin(checked.run, checked.plan, checked.plan_digest), store, fetch)
        await replay.take(checked.plan.initial_weights, "the initial weights")
        rounds = []
        for statement in lineage.rounds:
            rounds.append(await replay.round(statement))
            reached(len(rounds), len(lineage.rounds))
        if lineage.model is not None:
            await replay.model(lineage.model)
    model = lineage.model
    return ModelProof(
        run=checked.run,
        public_key=lineage.public_key,
        plan_signed_by=checked.plan_signed_by,
        rounds=tuple(rounds),
        model=None if model is None else model.model,
        model_sha256="" if model is None else model.model_sha256,
    )


class Replay:
    """Goes along a lineage with the orchestrator's own code, in a store of its own."""

    def __init__(self, run: Run, store: WeightStore, fetch: Fetch) -> None:
        self._run = run
        self._store = store
        self._fetch = fetch

    async def take(self, digest: WeightsId | str, what: str, sha256: str = "") -> None:
        """Have the bytes of that digest in the store; raise LineageBroken."""
        try:
            data = await self._fetch(WeightsId(digest))
        except RequestError as error:
            raise LineageBroken(what, str(error)) from error
        if sha256 and hashlib.sha256(data).hexdigest() != sha256:
            raise LineageBroken(what, f"their SHA-256 is not {sha256}")
        self._store.put(data)

    async def round(self, statement: RoundStatement) -> RoundProof:
        """Check a round's files, make it again where its updates were kept, and go on from it."""
        name = f"the weights of round {statement.round}"
        await self.take(statement.weights, name, statement.weights_sha256)
        if statement.optimizer_state is not None:
            what = f"the optimiser's state after round {statement.round}"
            await self.take(statement.optimizer_state, what)
        self._run = replace(self._run, weights=statement.parent, published=statement.round - 1)
        how = How.REPLAYED if statement.updates_kept else How.STATED
        if statement.updates_kept:
            self._compare(statement, await self._made_again(statement))
        self._run = replace(
            self._run,
            weights=statement.weights,
            optimizer_state=statement.optimizer_state,
            published=statement.round,
        )
        return RoundProof(statement.round, how, len(statement.updates))

    async def model(self, statement: ModelStatement) -> None:
        """Make the run's model of its last rounds again."""
        await self.take(statement.model, "the model", statement.model_sha256)
        made = complete(self._run, self._store)
        if (made.model, made.model_sha256) != (statement.model, statement.model_sha256):
            raise LineageBroken("the model", f"made again it is {made.model[:12]}")

    async def _made_again(self, statement: RoundStatement) -> RoundPublished:
        plan = self._run.plan
        total = Accumulator(plan.task.layout.size, statement.total_weight)
        for each in statement.updates:
            what = f"the update of {each.gateway} in round {statement.round}"
            await self.take(each.digest, what)
            data = self._store.get(each.digest)
            if each.norm is not None and (norm := _norm(data, plan, what)) != each.norm:
                raise LineageBroken(what, f"its norm is {norm!r}, not {each.norm!r}")
            scale = factor(each.norm, statement.norm_bound)
            total.add(each.gateway, _values(data, plan, what), each.weight, scale)
        members = {each.gateway: each.digest for each in statement.updates}
        closing = Round(
            number=statement.round,
            attempt=statement.attempt,
            parent=statement.parent,
            invited=frozenset(members),
            quorum=0,
            remaining_s=0.0,
            phase=Phase.AGGREGATING,
            received=members,
        )
        made = publish(replace(self._run, round=closing), total, self._store)
        if not isinstance(made, RoundPublished):
            raise LineageBroken(statement.name, f"made again nothing is published: {made.reason}")
        return made

    @staticmethod
    def _compare(statement: RoundStatement, made: RoundPublished) -> None:
        if made.weights != statement.weights:
            problem = f"made again from the updates they are {made.weights[:12]}"
            raise LineageBroken(f"the weights of round {statement.round}", problem)
        if made.optimizer_state != statement.optimizer_state:
            what = f"the optimiser's state after round {statement.round}"
            raise LineageBroken(what, "made again it is another")


def _norm(data: bytes, plan: Plan, what: str) -> float:
    form = plan.update_form
    check = RunningCheck(Body(digest_of(data), len(data)), form)
    for start in range(0, len(data), CHUNK_BYTES):
        check.see(data[start : start + CHUNK_BYTES])
    try:
        return check.finish(lambda offset, length: memoryview(data)[offset : offset + length])
    except RequestError as error:
        raise LineageBroken(what, str(error)) from error


def _values(data: bytes, plan: Plan, what: str) -> Decoded:
    form = plan.update_form
    try:
        check_header(memoryview(data), form, length=len(data))
    except RequestError as error:
        raise LineageBroken(what, str(error)) from error
    return Decoded(np.frombuffer(data, np.uint8, offset=len(form.header)), form)


def check_complete(lineage: Lineage, story: Story) -> None:
    """Raise LineageBroken if statements are missing at the end."""
    last = lineage.rounds[-1].round if lineage.rounds else 0
    if last < story.published:
        raise LineageBroken(f"the statement of round {last + 1}", "it is missing")
    if story.model is not None and lineage.model is None:
        raise LineageBroken("the statement of the model", "it is missing")
    if lineage.model is not None and story.model not in {None, lineage.model.model}:
        raise LineageBroken("the model", f"the orchestrator now names {story.model}")


@contextmanager
def _store() -> Iterator[WeightStore]:
    with TemporaryDirectory() as folder:
        engine = open_database(f"sqlite:///{folder}/proof.db")
        try:
            yield WeightStore(Path(folder) / "weights", Fence(engine))
        finally:
            engine.dispose()
