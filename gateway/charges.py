"""What the ledger books: a run's terms, a round's charge, and what can be wrong with one.

A charge goes CHARGED -> READY -> RELEASED and is never taken back: CHARGED before the first batch
is read, READY once the update's bytes are safe, RELEASED when the round is published and the
secret of its noise is erased.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from common.accounting import PrivacyEvent
from common.errors import ConflictError, RequestError
from common.hyperparameters import Hyperparameters
from common.ids import GatewayId, PlanId, RunId, WeightsId
from common.plan import Relation, Unit
from common.protocol import RefusalReason
from common.randomness import RandomStream, derive_key


class ChargeState(StrEnum):
    """How far a charged round has come."""

    CHARGED = "charged"
    READY = "ready"
    RELEASED = "released"


@dataclass(frozen=True)
class DataSetBinding:
    """A data set's name and the keyed digest of its content; neither leaves the gateway."""

    name: str
    digest: str


@dataclass(frozen=True)
class RunTerms:
    """What a run was begun with; a round is only ever trained on these."""

    run: RunId
    gateway: GatewayId
    plan: PlanId
    effective: Hyperparameters
    data: DataSetBinding
    delta: float
    unit: Unit = Unit.EXAMPLE
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def differences(self, other: RunTerms) -> str:
        """Name the terms in which `other` is not the same."""
        mine, others = asdict(self), asdict(other)
        return ", ".join(name for name in mine if mine[name] != others[name])


@dataclass(frozen=True)
class RoundCharge:
    """One round of a run, trained from one parent."""

    terms: RunTerms
    round: int
    parent: WeightsId
    event: PrivacyEvent  # as the sampler that will draw the batches gave it

    @property
    def binding(self) -> Mapping[str, str]:
        """What the round's keys are bound to: if any of it differs, so does all noise."""
        return {
            "gateway": self.terms.gateway,
            "run": self.terms.run,
            "round": str(self.round),
            "parent": self.parent,
            "plan": self.terms.plan,
            "effective": self.terms.effective.to_json(),
            "data": self.terms.data.digest,
        }


@dataclass(frozen=True)
class ChargedRound:
    """A round that is paid for, and the secret from which its randomness is drawn."""

    charge: RoundCharge
    secret: bytes
    clipping_norm: float  # that the round begins with, as it was booked: C, in gradient units
    update: WeightsId | None  # None: nothing is kept yet, train
    fresh: bool  # False: it was charged before, and costs nothing more

    @property
    def sampling(self) -> RandomStream:
        """The stream that draws the round's batches, from its beginning."""
        return self._stream("sampling")

    @property
    def noise(self) -> RandomStream:
        """The stream of the round's noise, from its beginning."""
        return self._stream("noise")

    @property
    def rounding(self) -> RandomStream:
        """The stream that rounds the update for the wire, from its beginning."""
        return self._stream("rounding")

    def _stream(self, purpose: str) -> RandomStream:
        binding = self.charge.binding
        if self.charge.terms.effective.adaptive_clipping is not None:
            binding = {**binding, "clipping_norm": self.clipping_norm.hex()}
        return RandomStream(derive_key(self.secret, purpose=purpose, binding=binding))


@dataclass(frozen=True)
class BookedCharge:
    """A charge as `fedgate-gateway ledger show` lists it; without its secret."""

    sequence: int
    terms: RunTerms
    round: int
    parent: WeightsId
    event: PrivacyEvent
    clipping_norm: float  # that the round begins with: C, in gradient units
    state: ChargeState
    update: WeightsId | None


class Equivocation(ConflictError):
    """A second parent was offered for a round that is charged: it would share the noise."""

    field = "parent"
    reason = RefusalReason.EQUIVOCATION

    def __init__(self, run: RunId, number: int, *, charged: WeightsId, offered: WeightsId) -> None:
        super().__init__(
            f"round {number} of run {run!r} was charged on parent {charged[:12]}, and now "
            f"{offered[:12]} is offered: two updates under one noise would cancel it; the offer is "
            "on record, ask the orchestrator's operator why one round has two parents"
        )


class ForeignStart(ConflictError):
    """The first round is to begin with other weights than those that the operator has signed."""

    field = "initial_weights"
    reason = RefusalReason.EQUIVOCATION

    def __init__(self, run: RunId, *, got: WeightsId, planned: WeightsId) -> None:
        super().__init__(
            f"round 1 of run {run!r} is to begin with weights {got[:12]}, the plan that was signed "
            f"begins with {planned[:12]}: nothing was charged; ask the orchestrator's operator"
        )


class RoundNotRepeatable(ConflictError):
    """A round is asked for on other terms than those that its run was begun with."""

    reason = RefusalReason.NOT_REPEATABLE

    def __init__(self, run: RunId, differences: str) -> None:
        super().__init__(
            f"run {run!r} was begun with other values of: {differences}; this gateway sits the run "
            "out until they are put back; changed values count from the next run on"
        )


class RoundNotPlanned(RequestError):
    """A round is asked for that the plan does not have, so that nobody has paid for it."""

    field = "round"
    reason = RefusalReason.EPSILON_BUDGET

    def __init__(self, run: RunId, number: int, *, rounds: int) -> None:
        super().__init__(
            f"round {number} of run {run!r} is asked for, its plan has rounds 1 to {rounds}: "
            "nothing was charged"
        )


class BudgetExhausted(ConflictError):
    """Another round would pass the epsilon budget of the data."""

    reason = RefusalReason.EPSILON_BUDGET

    def __init__(self, run: RunId, number: int, *, budget: float) -> None:
        super().__init__(
            f"round {number} of run {run!r} would take the data past an epsilon of {budget}, the "
            "budget of this gateway's policy, since other runs have used the same data: "
            "it sits the round out"
        )


class RoundReleased(ConflictError):
    """A round is asked for whose keys were erased because it was published."""

    reason = RefusalReason.NOT_REPEATABLE

    def __init__(self, run: RunId, number: int) -> None:
        super().__init__(
            f"round {number} of run {run!r} was published and its keys are erased: "
            "it cannot be trained again"
        )


class RoundMerged(ConflictError):
    """A round is asked for whose charge came from another image of the ledger."""

    reason = RefusalReason.NOT_REPEATABLE

    def __init__(self, run: RunId, number: int) -> None:
        super().__init__(
            f"round {number} of run {run!r} was charged in another image of this ledger, whose "
            "keys were not taken over: it cannot be trained again"
        )


class UpdateNotRepeatable(ConflictError):
    """A round that was trained before came out with other bytes."""

    reason = RefusalReason.NOT_REPEATABLE

    def __init__(self, run: RunId, number: int) -> None:
        super().__init__(
            f"round {number} of run {run!r} already has an update with another digest: only one "
            "may ever leave; this gateway sits the round out"
        )


class RunNotBegun(ConflictError):
    """A round is asked for of a run that this gateway has not accepted."""

    reason = RefusalReason.NOT_REPEATABLE

    def __init__(self, run: RunId) -> None:
        super().__init__(f"run {run!r} has not been accepted here: review its plan first")


class DataSetChanged(RequestError):
    """The data under a charged name are no longer those that were charged."""

    field = "data"
    reason = RefusalReason.DATA_UNFIT

    def __init__(self, name: str) -> None:
        super().__init__(
            f"data set {name!r} was charged with other content: put the old data back, or give the "
            "new ones a name of their own if they are other examples"
        )


class DataAlreadyCharged(RequestError):
    """Data that were charged under other names are offered under a new one."""

    field = "data"
    reason = RefusalReason.DATA_UNFIT

    def __init__(self, name: str, *, charged_as: Sequence[str], shared: int) -> None:
        names = ", ".join(map(repr, charged_as))
        super().__init__(
            f"{shared} examples of data set {name!r} were charged as {names}, more than a tenth of "
            "one of these: use the old name with its data, so that what they have spent stays "
            "counted"
        )


class UnitChanged(ConflictError):
    """A data set that was charged under one unit of privacy is to be charged under another."""

    field = "privacy.unit"
    reason = RefusalReason.DATA_UNFIT

    def __init__(self, name: str, *, charged: Iterable[Unit], asked: Unit) -> None:
        units = " and ".join(sorted(charged))
        super().__init__(
            f"data set {name!r} was charged under the unit {units}, and the plan's unit is the "
            f"{asked}: what was spent on the one says nothing of the other, no epsilon would hold; "
            f"ask the operator for a plan of unit {units}, or train on data that are not charged"
        )


class LedgerInUse(ConflictError):
    """Another process holds the ledger."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"ledger {path} is in use by another process: stop that gateway, or give this one a "
            "state folder of its own"
        )


class LedgerUnreadable(RequestError):
    """The ledger cannot be read or written, so nothing may be spent."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"the ledger cannot be used ({problem}): nothing is trained until it can; restore it, "
            "never start an empty one for data that were charged"
        )


class LedgerModeMismatch(RequestError):
    """A ledger of seeded runs is opened for private ones, or the other way round."""

    def __init__(self, *, insecure_deterministic: bool) -> None:
        stamp = "with --insecure-deterministic" if insecure_deterministic else "for private runs"
        super().__init__(
            f"this ledger was made {stamp} and serves no other: give this run a ledger of its own"
        )
