"""Lineage: what each published model was made of, in statements that the orchestrator signs.

A run's statements are a chain, from the plan's initial weights to the run's model: each names the
one before it by the SHA-256 of its bytes. Of privacy they hold facts, what each gateway trained
with and how many rounds it was told to: epsilon is for the reader to work out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import Discriminator, TypeAdapter

from common.errors import RequestError
from common.plan import Privacy, ServerOptimizer
from common.protocol import (
    CheckedGatewayId,
    CheckedPlanId,
    CheckedRunId,
    CheckedWeightsId,
    Count,
    Effective,
    MaybeWeightsId,
    PublicKey,
    RoundNumber,
    Sha256,
    Signature,
)
from common.statements import canonical, is_genuine, parsed, signed_by

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from common.ids import PlanId, RunId

DOMAIN = b"fedgate lineage 1\0"
MaybeSha256: TypeAlias = Sha256 | Literal[""]


class LineageBroken(RequestError):
    """A statement of a run's lineage, or what it speaks of, is not as it was signed."""

    def __init__(self, what: str, problem: str) -> None:
        super().__init__(f"{what} is the first bad one: {problem}")
        self.what = what


@dataclass(frozen=True)
class Included:
    """An update that is part of the mean."""

    gateway: CheckedGatewayId
    digest: CheckedWeightsId  # BLAKE3 of its bytes
    weight: Count
    norm: float | None = None  # L2, of what came; None: the plan bounds none


@dataclass(frozen=True)
class Trained:
    """What some gateways trained with, and for how many rounds each may have: all it was told."""

    effective: Effective
    rounds: dict[CheckedGatewayId, Count]


@dataclass(frozen=True)
class RoundStatement:
    """How the weights of one published round were made."""

    federation: str
    run: CheckedRunId
    plan: CheckedPlanId
    round: RoundNumber
    rounds: RoundNumber  # that the run is to publish
    attempt: RoundNumber
    parent: CheckedWeightsId
    updates: tuple[Included, ...]
    updates_kept: bool
    total_weight: Count  # of everyone invited, by which the fixed point is scaled
    norm_bound: float | None  # beyond which an update was scaled down to it; None: there was none
    strategy: Literal["fed_avg"]
    server: ServerOptimizer
    software: str
    privacy: Privacy
    trained: tuple[Trained, ...]
    optimizer_state: MaybeWeightsId  # what the server's optimiser remembers after it
    weights: CheckedWeightsId  # BLAKE3
    weights_sha256: Sha256
    previous: MaybeSha256  # of the statement before; empty: there is none
    kind: Literal["round"] = "round"

    @property
    def name(self) -> str:
        """How it is called."""
        return f"the statement of round {self.round}"


@dataclass(frozen=True)
class ModelStatement:
    """How a run's model follows from its published rounds."""

    federation: str
    run: CheckedRunId
    plan: CheckedPlanId
    rounds: Count
    parent: CheckedWeightsId  # the last round's
    tail: Count  # of the last rounds' weights that are averaged; 1: the model is the last
    software: str
    model: CheckedWeightsId
    model_sha256: Sha256
    previous: MaybeSha256
    kind: Literal["model"] = "model"

    @property
    def name(self) -> str:
        """How it is called."""
        return "the statement of the model"


Statement: TypeAlias = Annotated[RoundStatement | ModelStatement, Discriminator("kind")]
_STATEMENT: TypeAdapter[RoundStatement | ModelStatement] = TypeAdapter(Statement)


@dataclass(frozen=True)
class Signed:
    """A statement's bytes and who signed them; nothing of it is checked yet."""

    body: bytes
    public_key: PublicKey  # Ed25519, hexadecimal
    signature: Signature

    @property
    def digest(self) -> str:
        """What the statement after it names it by."""
        return hashlib.sha256(self.body).hexdigest()

    @property
    def statement(self) -> RoundStatement | ModelStatement:
        """What it says; raise ValueError unless its bytes are a statement's, as it is written."""
        statement = _STATEMENT.validate_json(self.body)
        if to_bytes(statement) != self.body:
            msg = "these are not a statement's bytes"
            raise ValueError(msg)
        return statement

    @property
    def is_genuine(self) -> bool:
        """Whether the key that it names has signed it."""
        return is_genuine(self.public_key, self.signature, DOMAIN + self.body)

    def to_text(self) -> bytes:
        """Return it as a line of a file, without the line's end."""
        said = {"statement": parsed(self.body)}
        return canonical({**said, "public_key": self.public_key, "signature": self.signature})

    @classmethod
    def from_text(cls, text: bytes) -> Self:
        """Return what `to_text` was asked for; raise ValueError, KeyError, TypeError."""
        fields = parsed(text)
        body = canonical(fields["statement"])
        signed = cls(**vars(signed_of(body, fields["public_key"], fields["signature"])))
        if signed.to_text() != text:
            msg = "this line is not as it was written"
            raise ValueError(msg)
        return signed


_SIGNED = TypeAdapter(Signed)


def signed_of(body: bytes, public_key: str, signature: str) -> Signed:
    """Return a signed statement; raise ValueError if key or signature cannot be one."""
    fields = {"body": body, "public_key": public_key, "signature": signature}
    return _SIGNED.validate_python(fields)


def to_bytes(statement: RoundStatement | ModelStatement) -> bytes:
    """Return the bytes that are signed; different statements have different bytes."""
    said: dict[str, Any] = _STATEMENT.dump_python(statement, mode="json")
    return canonical(said)


def lineage_from(data: bytes) -> tuple[Signed, ...]:
    """Return the statements in a file's lines; raise LineageBroken at the first that is none."""
    lines, found = data.split(b"\n"), list[Signed]()
    if last := lines.pop():
        lines.append(last + b"\n")  # the file was cut off in it
    for number, text in enumerate(lines, 1):
        try:
            found.append(Signed.from_text(text))
        except (ValueError, KeyError, TypeError) as error:
            name = f"the statement in line {number}"
            raise LineageBroken(name, "it is not as it was written") from error
    return tuple(found)


def sign(key: Ed25519PrivateKey, statement: RoundStatement | ModelStatement) -> Signed:
    """Return the statement under the signature of `key`'s owner."""
    body = to_bytes(statement)
    return Signed(body, *signed_by(key, DOMAIN + body))


@dataclass(frozen=True)
class Origin:
    """What a run's lineage must begin with and speak of."""

    federation: str
    run: RunId
    plan: PlanId
    initial_weights: str


@dataclass(frozen=True)
class Lineage:
    """A chain of statements that was found whole."""

    public_key: str  # whose word it is
    rounds: tuple[RoundStatement, ...]
    model: ModelStatement | None  # None: the run has not been completed


def check_lineage(signed: Sequence[Signed], origin: Origin, key: str | None = None) -> Lineage:
    """Return a run's lineage, each statement genuine and the follower of the one before it.

    Args:
        signed: the statements, in their order.
        origin: what they must begin with.
        key: who must have signed them; None: whoever signed the first.

    Raises:
        LineageBroken: one is not; it is named, and everything before it is whole.
    """
    found: list[RoundStatement | ModelStatement] = []
    before = ""
    for each in signed:
        name = _name_after(found)
        statement = _genuine(each, name, key or signed[0].public_key)
        problem = _misplaced(statement, found, before) or _strange(statement, origin, found)
        if problem:
            raise LineageBroken(name, problem)
        found.append(statement)
        before = each.digest
    rounds = tuple(each for each in found if isinstance(each, RoundStatement))
    model = next((each for each in found if isinstance(each, ModelStatement)), None)
    return Lineage(signed[0].public_key if signed else "", rounds, model)


def _name_after(found: Sequence[RoundStatement | ModelStatement]) -> str:
    """Return what the statement is called that must come next."""
    last = found[-1] if found else None
    if isinstance(last, RoundStatement) and last.round < last.rounds:
        return f"the statement of round {last.round + 1}"
    return "the statement of round 1" if last is None else "the statement of the model"


def _genuine(signed: Signed, name: str, key: str) -> RoundStatement | ModelStatement:
    if signed.public_key != key:
        raise LineageBroken(name, f"it is signed by {signed.public_key}, expected is {key}")
    if not signed.is_genuine:
        raise LineageBroken(name, "it was changed after it was signed")
    try:
        return signed.statement
    except ValueError as error:
        raise LineageBroken(name, "it is of a form that this version does not know") from error


def _misplaced(
    statement: RoundStatement | ModelStatement,
    found: Sequence[RoundStatement | ModelStatement],
    before: str,
) -> str:
    """Return what is wrong with a statement's place, or nothing."""
    last = found[-1] if found else None
    if statement.previous != before or isinstance(last, ModelStatement):
        return f"{statement.name} stands in its place"
    if isinstance(statement, ModelStatement):
        return ""
    if last is None:
        return "" if statement.round == 1 else f"it begins at {statement.name}"
    return "" if statement.round == last.round + 1 else f"{statement.name} stands in its place"


def _strange(
    statement: RoundStatement | ModelStatement,
    origin: Origin,
    found: Sequence[RoundStatement | ModelStatement],
) -> str:
    """Return what of a statement speaks of something else, or nothing."""
    if statement.federation != origin.federation:
        return f"it is of federation {statement.federation!r}, not of {origin.federation!r}"
    if (statement.run, statement.plan) != (origin.run, origin.plan):
        return f"it is of run {statement.run!r} and plan {statement.plan[:12]}"
    last = found[-1] if found else None
    if last is None:
        parent = origin.initial_weights
    else:
        parent = last.weights if isinstance(last, RoundStatement) else statement.parent
    if statement.parent != parent:
        return f"its parent is {statement.parent[:12]}, the weights before are {parent[:12]}"
    if isinstance(statement, RoundStatement):
        return _untrained(statement, found)
    if not isinstance(last, RoundStatement):
        return "round 1 is missing"
    return "" if last.round == last.rounds else f"round {last.round + 1} is missing"


def _untrained(statement: RoundStatement, found: Sequence[RoundStatement | ModelStatement]) -> str:
    """Return which update nobody is said to have trained, or nothing.

    A gateway is charged for at least as many rounds as its updates were part of.
    """
    if not statement.updates:
        return "it is of no update"
    rounds = [each for each in (*found, statement) if isinstance(each, RoundStatement)]
    counted = Counter(update.gateway for each in rounds for update in each.updates)
    trained = {
        gateway: count for alike in statement.trained for gateway, count in alike.rounds.items()
    }
    short = sorted(name for name, count in counted.items() if trained.get(name, 0) < count)
    return f"{short[0]} trained for fewer rounds than its updates are part of" if short else ""
