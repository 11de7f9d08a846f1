"""Messages of GatewayService <-> values; with `wire_values`, the only checker of input."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol

from blake3 import blake3

from common.hyperparameters import Hyperparameters
from common.ids import NO_RUN, GatewayId, PlanId, RunId
from common.plan import Plan
from common.protocol import (
    Body,
    Chunk,
    Config,
    Countersignature,
    Decline,
    Effective,
    Receipt,
    Refusal,
    Registration,
    Review,
    RunNews,
    Stop,
    Train,
    UpdateHeader,
    UpdateKey,
    UploadState,
    Versions,
    Wait,
)
from common.signatures import PlanSignature
from common.wire_values import Bridge, InvalidMessage
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1 import plan_pb2, weights_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from common.protocol import Instruction

MOST_NAMED = 4096  # runs or tasks in one message of a gateway

PLAN = Bridge(Plan, plan_pb2.Plan)
HYPERPARAMETERS = Bridge(Hyperparameters, plan_pb2.Hyperparameters)
EFFECTIVE = Bridge(Effective, pb.Effective)
REFUSAL = Bridge(Refusal, pb.Refusal)
BODY = Bridge(Body, weights_pb2.TransferHeader)
KEY = Bridge(UpdateKey, pb.UpdateKey)
UPDATE_HEADER = Bridge(UpdateHeader, pb.UpdateHeader)
COUNTERSIGNATURE = Bridge(Countersignature, pb.LedgerCountersignature)
PLAN_SIGNATURE = Bridge(PlanSignature, plan_pb2.PlanSignature)
DECLINE = Bridge(Decline, pb.Decline)
REVIEW = Bridge(Review, pb.Review)
TRAIN = Bridge(Train, pb.Train)
WAIT = Bridge(Wait, pb.Wait)
STOP = Bridge(Stop, pb.Stop)
_KEPT = 64  # news: a round's is the same for all who are told together


class _OfBody(Protocol):
    """FetchWeights's response, of either service."""

    @property
    def header(self) -> weights_pb2.TransferHeader: ...

    @property
    def chunk(self) -> weights_pb2.Chunk: ...

    def WhichOneof(self, oneof_group: Literal["part"], /) -> str | None: ...  # noqa: N802


class _Signed(Protocol):
    """A message that carries a plan's signature."""

    @property
    def signature(self) -> plan_pb2.PlanSignature: ...

    def HasField(self, field_name: Literal["signature"], /) -> bool: ...  # noqa: N802


def plan_to_bytes(plan: Plan) -> bytes:
    """Return the bytes that name and carry `plan`; equal plans give equal bytes."""
    return PLAN.to_message(plan).SerializeToString(deterministic=True)


def plan_from_bytes(data: bytes) -> Plan:
    """Return the plan in `data`; raise InvalidMessage naming the field that does not fit."""
    return PLAN.from_bytes(data)


def plan_id(data: bytes) -> PlanId:
    """Return the digest that names a plan: BLAKE3 of its bytes as they were sent."""
    return PlanId(blake3(data).hexdigest())


def body_part(message: _OfBody | Chunk) -> Body | Chunk:
    """Return what one response of FetchWeights holds."""
    if isinstance(message, Chunk):
        return message  # `common.frames` has read it
    if message.WhichOneof("part") == "header":
        return BODY.from_message(message.header)
    return chunk_from_proto(message.chunk)


def chunk_from_proto(message: weights_pb2.Chunk) -> Chunk:
    """Return one piece of a body."""
    return Chunk(offset=message.offset, data=message.data)


def versions_from_register(message: pb.RegisterRequest) -> Versions:
    """Return what a gateway says it is; raise InvalidMessage for more than MOST_NAMED tasks."""
    if len(message.tasks) > MOST_NAMED:
        problem = f"names {len(message.tasks)} tasks, at most {MOST_NAMED} are read"
        raise InvalidMessage("RegisterRequest", field="tasks", problem=problem)
    return Versions(
        protocol=message.protocol_version,
        software=message.software_version,
        tasks={task.name: task.digest for task in message.tasks},
    )


def versions_to_register(versions: Versions) -> pb.RegisterRequest:
    """Return the first message of a gateway."""
    return pb.RegisterRequest(
        protocol_version=versions.protocol,
        software_version=versions.software,
        tasks=[pb.InstalledTask(name=n, digest=d) for n, d in sorted(versions.tasks.items())],
    )


def registration_to_proto(registration: Registration) -> pb.RegisterResponse:
    """Return the answer to Register."""
    return pb.RegisterResponse(
        gateway=registration.gateway,
        lease=registration.lease,
        protocol_version=registration.versions.protocol,
        software_version=registration.versions.software,
        chunk_byte_limit=registration.chunk_byte_limit,
    )


def registration_from_proto(message: pb.RegisterResponse) -> Registration:
    """Return what the orchestrator answered to Register."""
    return Registration(
        gateway=GatewayId(message.gateway),
        lease=message.lease,
        versions=Versions(message.protocol_version, message.software_version),
        chunk_byte_limit=message.chunk_byte_limit,
    )


def config_to_proto(config: Config) -> pb.GetConfigResponse:
    """Return the answer to GetConfig."""
    signed = None if config.signature is None else PLAN_SIGNATURE.to_message(config.signature)
    return pb.GetConfigResponse(
        run_id=config.run_id,
        plan=config.plan,
        plan_digest=config.plan_digest,
        assigned=HYPERPARAMETERS.to_message(config.assigned),
        signature=signed,
    )


def config_from_proto(run_id: RunId, message: pb.GetConfigResponse) -> Config:
    """Return the plan's bytes after checking that the digest is theirs."""
    digest = plan_id(message.plan)
    if digest != message.plan_digest:
        problem = f"names {message.plan_digest!r}, the plan's bytes have {digest!r}"
        raise InvalidMessage("GetConfigResponse", field="plan_digest", problem=problem)
    assigned = HYPERPARAMETERS.from_message(message.assigned)
    signature = signature_from_proto(message)
    return Config(run_id, message.plan, digest, assigned, signature)


def signature_from_proto(message: _Signed) -> PlanSignature | None:
    """Return the plan's signature in a message, as it is; None if there is none."""
    present = message.HasField("signature")
    return PLAN_SIGNATURE.from_message(message.signature) if present else None


def answer_to_proto(
    run_id: RunId, plan_digest: PlanId, answer: Effective | Refusal, signature: bytes = b""
) -> pb.AcceptPlanRequest:
    """Return a gateway's answer to a plan, and its signature where it accepts."""
    request = pb.AcceptPlanRequest(run_id=run_id, plan_digest=plan_digest, signature=signature)
    if isinstance(answer, Effective):
        request.effective.CopyFrom(EFFECTIVE.to_message(answer))
    else:
        request.refusal.CopyFrom(REFUSAL.to_message(answer))
    return request


def answer_from_proto(message: pb.AcceptPlanRequest) -> Effective | Refusal:
    """Return a gateway's answer to a plan."""
    match message.WhichOneof("answer"):
        case "effective":
            return EFFECTIVE.from_message(message.effective)
        case "refusal":
            return REFUSAL.from_message(message.refusal)
        case _:
            raise InvalidMessage(
                "AcceptPlanRequest", field="answer", problem="neither values nor a refusal"
            )


@lru_cache(_KEPT)
def news_to_proto(news: RunNews) -> pb.WatchResponse:
    """Return one message of the Watch stream, perhaps one that others have had: to be read only."""
    response = pb.WatchResponse(run_id=news.run_id, published_round=news.published_round)
    match news.instruction:
        case Review():
            response.review.CopyFrom(REVIEW.to_message(news.instruction))
        case Train():
            response.train.CopyFrom(TRAIN.to_message(news.instruction))
        case Wait():
            response.wait.CopyFrom(WAIT.to_message(news.instruction))
        case Stop():
            response.stop.CopyFrom(STOP.to_message(news.instruction))
    return response


def news_from_proto(message: pb.WatchResponse) -> RunNews:
    """Return one message of the Watch stream."""
    return RunNews(
        run_id=_run_id(message.run_id),
        published_round=message.published_round,
        instruction=_instruction(message),
    )


def _instruction(message: pb.WatchResponse) -> Instruction:
    match message.WhichOneof("task"):
        case "review":
            return REVIEW.from_message(message.review)
        case "train":
            return TRAIN.from_message(message.train)
        case "wait":
            return WAIT.from_message(message.wait)
        case "stop":
            return STOP.from_message(message.stop)
        case _:
            raise InvalidMessage("WatchResponse", field="task", problem="says nothing to do")


def _run_id(text: str) -> RunId:
    """A run's name, or empty where the news is of no run (Stop: superseded)."""
    return KEY.check({"run_id": text, "round": 1}).run_id if text else NO_RUN


def upload_request(key: UpdateKey, digest: str) -> pb.GetUploadRequest:
    """Return the question how much of an update has arrived."""
    return pb.GetUploadRequest(key=KEY.to_message(key), digest=digest)


def upload_state_from_proto(message: pb.GetUploadResponse) -> UploadState:
    """Return how much of an update has arrived."""
    return UploadState(offset=message.offset, received=message.received)


def upload_state_to_proto(state: UploadState) -> pb.GetUploadResponse:
    """Return how much of an update has arrived."""
    return pb.GetUploadResponse(offset=state.offset, received=state.received)


def receipt_to_proto(receipt: Receipt) -> pb.SubmitUpdateResponse:
    """Return the answer to SubmitUpdate."""
    return pb.SubmitUpdateResponse(
        key=KEY.to_message(receipt.key),
        digest=receipt.digest or "",
        countersigned=_countersigned_to_proto(receipt.countersigned),
        set_aside=receipt.set_aside,
    )


def receipt_from_proto(message: pb.SubmitUpdateResponse) -> Receipt:
    """Return the answer to SubmitUpdate."""
    digest = (
        BODY.check({"digest": message.digest, "byte_length": 0}).digest if message.digest else None
    )
    countersigned = _countersigned_from_proto(message)
    return Receipt(KEY.from_message(message.key), digest, countersigned, message.set_aside)


def ledger_head_to_proto(newest: Countersignature | None) -> pb.GetLedgerHeadResponse:
    """Return the answer to GetLedgerHead."""
    return pb.GetLedgerHeadResponse(countersigned=_countersigned_to_proto(newest))


def ledger_head_from_proto(message: pb.GetLedgerHeadResponse) -> Countersignature | None:
    """Return the answer to GetLedgerHead; its signature is not checked here."""
    return _countersigned_from_proto(message)


def _countersigned_to_proto(value: Countersignature | None) -> pb.LedgerCountersignature | None:
    return None if value is None else COUNTERSIGNATURE.to_message(value)


def _countersigned_from_proto(
    message: pb.SubmitUpdateResponse | pb.GetLedgerHeadResponse,
) -> Countersignature | None:
    present = message.HasField("countersigned")
    return COUNTERSIGNATURE.from_message(message.countersigned) if present else None


def run_ids(texts: Sequence[str]) -> tuple[RunId, ...]:
    """Return the names of runs, checked; raise InvalidMessage, also for more than MOST_NAMED."""
    if len(texts) > MOST_NAMED:
        problem = f"names {len(texts)} runs, at most {MOST_NAMED} are read"
        raise InvalidMessage("WatchRequest", field="kept_runs", problem=problem)
    return tuple(_run_id(text) for text in texts if text)
