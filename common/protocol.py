"""What the two sides say to each other, as values; `common.wire` turns them into messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator, Field, StringConstraints

from common.bad_updates import Standing, UpdateRefusalReason
from common.hyperparameters import Hyperparameters
from common.ids import DIGEST_PATTERN, NAME_PATTERN, GatewayId, PlanId, RunId, WeightsId
from common.plan import Privacy
from common.signatures import PlanSignature
from common.trace_context import TRACEPARENT_PATTERN

PROTOCOL_VERSION = 1

# what `common.wire` checks when a message comes in
CheckedGatewayId: TypeAlias = Annotated[GatewayId, StringConstraints(pattern=NAME_PATTERN)]
CheckedRunId: TypeAlias = Annotated[RunId, StringConstraints(pattern=NAME_PATTERN)]
CheckedWeightsId: TypeAlias = Annotated[WeightsId, StringConstraints(pattern=DIGEST_PATTERN)]
CheckedPlanId: TypeAlias = Annotated[PlanId, StringConstraints(pattern=DIGEST_PATTERN)]
MaybeWeightsId: TypeAlias = Annotated[  # an absent digest is an empty string in a message
    CheckedWeightsId | None, BeforeValidator(lambda text: text or None)
]
CheckedTraceparent: TypeAlias = Annotated[
    str, StringConstraints(pattern=f"^({TRACEPARENT_PATTERN})?$")
]
Count: TypeAlias = Annotated[int, Field(ge=0)]
SequenceNumber: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 62)]  # a database holds it signed
Sha256: TypeAlias = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
PublicKey: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Signature: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
RoundNumber: TypeAlias = Annotated[int, Field(ge=1)]
Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class RefusalReason(StrEnum):
    """Why a gateway does not take a plan or a round; the sentence stays in its own log."""

    NOT_INVITED = "not_invited"
    OUTSIDE_BOUNDS = "outside_bounds"
    NOISE_FLOOR = "noise_floor"
    EPSILON_BUDGET = "epsilon_budget"
    TARGET_EPSILON = "target_epsilon"
    TASK_MISMATCH = "task_mismatch"
    DATA_UNFIT = "data_unfit"
    EQUIVOCATION = "equivocation"
    NOT_REPEATABLE = "not_repeatable"
    DELTA = "delta"
    FAILED = "failed"
    LEDGER_ROLLED_BACK = "ledger_rolled_back"
    KEPT_UPDATES = "kept_updates"
    PLAN_UNTRUSTED = "plan_untrusted"
    PLAN_SIGNATURE = "plan_signature"
    PAUSED = "paused"


class WaitReason(StrEnum):
    """Why there is nothing to do."""

    OTHERS = "others"
    NO_ROUND = "no_round"


class StopReason(StrEnum):
    """Why there will be nothing more to do in this run."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN_RUN = "unknown_run"
    SUPERSEDED = "superseded"


class RunState(StrEnum):
    """Where a run stands."""

    GATHERING = "gathering"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self not in GOING_ON


GOING_ON = (RunState.GATHERING, RunState.RUNNING)


@dataclass(frozen=True)
class Versions:
    """What one side is: the protocol it speaks, its software, its tasks by name."""

    protocol: int
    software: str
    tasks: dict[str, str] = field(default_factory=dict)  # name -> digest


@dataclass(frozen=True)
class Registration:
    """The orchestrator's answer to Register."""

    gateway: CheckedGatewayId
    lease: str
    versions: Versions
    chunk_byte_limit: int


@dataclass(frozen=True)
class Config:
    """A plan's bytes, their digest, and what the plan gives the gateway that asked."""

    run_id: CheckedRunId
    plan: bytes
    plan_digest: CheckedPlanId
    assigned: Hyperparameters
    signature: PlanSignature | None = None


@dataclass(frozen=True)
class Effective:
    """What a gateway trains a run with."""

    hyperparameters: Hyperparameters
    insecure_deterministic: bool = False


@dataclass(frozen=True)
class Refusal:
    """A reason code and the field of the plan at fault, nothing more."""

    reason: RefusalReason
    field: Annotated[str, StringConstraints(max_length=200)] = ""


@dataclass(frozen=True)
class Body:
    """A body that travels in chunks: its name and its length."""

    digest: CheckedWeightsId
    byte_length: Count
    offset: Count = 0


@dataclass(frozen=True)
class Chunk:
    """A piece of a body; `offset` is where its first byte stands in the whole."""

    offset: int
    data: bytes | memoryview


@dataclass(frozen=True)
class Review:
    """Read the plan and answer it."""

    plan_digest: CheckedPlanId


@dataclass(frozen=True)
class Train:
    """Train this round, or send its update again if it is kept."""

    round: int
    weights: Body
    remaining_s: float
    traceparent: CheckedTraceparent = ""  # empty: an older orchestrator has none


@dataclass(frozen=True)
class Wait:
    """Nothing to do now; the stream brings what comes next."""

    reason: WaitReason


@dataclass(frozen=True)
class Stop:
    """Nothing more to do in this run."""

    reason: StopReason


Instruction: TypeAlias = Review | Train | Wait | Stop


@dataclass(frozen=True)
class RunNews:
    """The state of one run, for one gateway."""

    run_id: CheckedRunId
    published_round: int  # updates of rounds up to this one may be let go
    instruction: Instruction


@dataclass(frozen=True)
class UpdateKey:
    """Which update: one gateway has one for each round of a run."""

    run_id: CheckedRunId
    round: RoundNumber


@dataclass(frozen=True)
class LedgerHead:
    """The last record of a gateway's ledger: its hash covers every record before it."""

    sequence: SequenceNumber  # 0: there is no record
    hash: Sha256
    insecure_deterministic: bool = False  # of the ledger of seeded runs, which stands apart


@dataclass(frozen=True)
class Countersignature:
    """The orchestrator's word that it has seen a head and will take no earlier one."""

    federation: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    head: LedgerHead
    public_key: PublicKey  # Ed25519, hexadecimal
    signature: Signature  # of `common.countersignature.statement`


@dataclass(frozen=True)
class UpdateHeader:
    """What is said of an update before its bytes."""

    key: UpdateKey
    plan_digest: CheckedPlanId
    parent: CheckedWeightsId
    body: Body
    ledger_head: LedgerHead | None = None  # of the ledger in which the update is charged


@dataclass(frozen=True)
class Decline:
    """Word that no update will come for a round."""

    key: UpdateKey
    refusal: Refusal


@dataclass(frozen=True)
class UploadState:
    """How much of an update has arrived."""

    offset: int
    received: bool


@dataclass(frozen=True)
class Receipt:
    """Counted: keep your bytes until the round is published."""

    key: UpdateKey
    digest: CheckedWeightsId | None  # None for a round that was declined
    countersigned: Countersignature | None = None  # of the header's ledger head
    set_aside: bool = False  # received, not counted: the gateway is in quarantine


@dataclass(frozen=True)
class ScoreSet:
    """How weights did on a public split; fractions."""

    round: Count
    split: Literal["dev", "test"]
    weights: CheckedWeightsId
    f1: Fraction
    precision: Fraction
    recall: Fraction
    support: Count


@dataclass(frozen=True)
class GatewayStatus:
    """One gateway in a run, as its operator sees it."""

    gateway: CheckedGatewayId
    connected: bool
    answered: bool
    rounds_invited: Count  # distinct rounds that it was told to train, so may have charged
    rounds_counted: Count  # published rounds that its update is part of
    answer: Effective | Refusal | None = None  # None: it has not answered the plan
    refused: UpdateRefusalReason | None = None  # its update of the current round
    rounds_refused: Count = 0  # published rounds for which its update was refused
    rounds_clipped: Count = 0  # published rounds for which its update was scaled down
    score: Fraction | None = None  # higher is worse; None: the plan keeps none
    standing: Standing | None = None


@dataclass(frozen=True)
class RunStatus:
    """A run, as its operator sees it."""

    run_id: CheckedRunId
    name: str
    state: RunState
    plan_digest: CheckedPlanId
    reason: str = ""
    round: int = 0
    rounds: int = 0
    opened_rounds: int = 0
    published_round: int = 0
    weights: MaybeWeightsId = None
    model: MaybeWeightsId = None
    model_sha256: str = ""
    gateways: tuple[GatewayStatus, ...] = ()
    scores: tuple[ScoreSet, ...] = ()
    remaining_s: float = 0.0
    bytes_received: int = 0
    bytes_sent: int = 0
    insecure_deterministic: bool = False
    privacy: Privacy | None = None  # the plan's promise; None: an older orchestrator does not say
    plan_signature: PlanSignature | None = None  # None: of before plans were signed
    norm_bound: float | None = None  # on updates of the current round

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state.has_ended
