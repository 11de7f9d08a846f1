"""Every message that either side parses, through the function that checks it."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from common import frames, wire, wire_audit, wire_operator
from common.certificates import read_chain, to_pem
from common.enrolment import Token, make_request, read_request
from common.ids import GatewayId, PlanId, RunId, WeightsId, is_name
from common.issuing import make_root, new_key
from common.membership import MEMBER, ROLL, TOKEN_WISH, to_revoke
from common.protocol import GatewayStatus, RunState, RunStatus, ScoreSet
from common.tls import Identity, Role
from orchestrator.auth import SERVICES
from orchestrator.bodies import part_of
from orchestrator.rpc_errors import strictly
from orchestrator.submissions import longest
from protos.federation.v1 import audit_pb2 as audit_pb
from protos.federation.v1 import enrolment_pb2 as enrolment_pb
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1 import operator_pb2 as operator_pb
from tests.fakes import EFFECTIVE, HYPERPARAMETERS, plan_of
from tests.fuzz.target import Target

OURS = "federation.v1."
DEPTH = 4
EXAMPLES = 6  # of each message
TEXTS = ("", "a", "r-1", "7" * 64, "0" * 64, "é" * 40, "../../x", "A" * 300, "toy")
DOUBLES = (0.0, -1.0, 1e-5, 1.0, 8.0, 1e308, float("nan"), float("inf"))
WHOLE = (0, 1, 2, 7, 1 << 20, (1 << 31) - 1)
PLAN = wire.plan_to_bytes(plan_of("a", "b"))


def _nothing(_: Any) -> None:
    """What holds nothing but what protobuf has checked."""


def _submitted(message: Any) -> None:
    if part_of(message) == "decline":
        wire.DECLINE.from_message(message.decline)
    elif part_of(message) == "header":
        wire.UPDATE_HEADER.from_message(message.header)


def _uploaded(message: Any) -> None:
    if part_of(message) == "header":
        wire.BODY.from_message(message.header)


def _started(message: Any) -> None:
    is_name(message.run_id)
    plan = wire.plan_from_bytes(message.plan)
    longest(plan.update_form.layout)
    for participant in plan.participants:
        plan.weight(participant.gateway)
        plan.assigned(participant.gateway)
    plan.loosest()


def _upload_asked(message: Any) -> None:
    wire.KEY.from_message(message.key)
    wire.BODY.check({"digest": message.digest, "byte_length": 0})


def _all_runs(message: Any) -> None:
    for run in message.runs:
        wire_operator.status_from_proto(run)


def _certified(message: Any) -> None:
    MEMBER.from_message(message.member)
    read_request(message.request)


def _checkpoints(message: Any) -> None:
    for checkpoint in message.checkpoints:
        wire_audit.CHECKPOINT.from_message(checkpoint)


# by message: what is done with it first, by whoever gets it. A slice that adds one adds a line
CHECKS: Mapping[str, Callable[[Any], object]] = {
    "RegisterRequest": wire.versions_from_register,
    "RegisterResponse": wire.registration_from_proto,
    "GetConfigRequest": _nothing,
    "GetConfigResponse": lambda message: wire.config_from_proto(RunId("r"), message),
    "AcceptPlanRequest": wire.answer_from_proto,
    "AcceptPlanResponse": _nothing,
    "WatchRequest": lambda message: wire.run_ids(message.kept_runs),
    "WatchResponse": wire.news_from_proto,
    "FetchWeightsRequest": _nothing,
    "FetchWeightsResponse": wire.body_part,
    "GetUploadRequest": _upload_asked,
    "GetUploadResponse": wire.upload_state_from_proto,
    "SubmitUpdateRequest": _submitted,
    "SubmitUpdateResponse": wire.receipt_from_proto,
    "GetLedgerHeadRequest": _nothing,
    "GetLedgerHeadResponse": wire.ledger_head_from_proto,
    "UploadWeightsRequest": _uploaded,
    "UploadWeightsResponse": _nothing,
    "StartRunRequest": _started,
    "StartRunResponse": _nothing,
    "CancelRunRequest": _nothing,
    "CreateWebLinkRequest": _nothing,
    "CreateWebLinkResponse": _nothing,
    "CancelRunResponse": lambda message: wire_operator.status_from_proto(message.status),
    "RecordScoresRequest": lambda message: wire_operator.SCORES.from_message(message.scores),
    "RecordScoresResponse": _nothing,
    "WatchRunRequest": _nothing,
    "WatchRunResponse": lambda message: wire_operator.status_from_proto(message.status),
    "ListRunsRequest": _nothing,
    "ListRunsResponse": _all_runs,
    "OperatorServiceFetchWeightsRequest": _nothing,
    "OperatorServiceFetchWeightsResponse": wire.body_part,
    "GetSignaturesRequest": _nothing,
    "GetSignaturesResponse": wire_operator.signatures_from_proto,
    "ReleaseGatewayRequest": _nothing,
    "ReleaseGatewayResponse": lambda message: wire_operator.status_from_proto(message.status),
    "EnrolRequest": lambda message: read_request(message.request),
    "EnrolResponse": lambda message: read_chain(message.chain),
    "RenewRequest": lambda message: read_request(message.request),
    "RenewResponse": lambda message: read_chain(message.chain),
    "CreateTokenRequest": TOKEN_WISH.from_message,
    "CreateTokenResponse": lambda message: Token.from_text(message.token),
    "CertifyRequest": _certified,
    "CertifyResponse": lambda message: read_chain(message.chain),
    "ListMembersRequest": _nothing,
    "ListMembersResponse": ROLL.from_message,
    "RevokeRequest": to_revoke,
    "RevokeResponse": _nothing,
    "ListRecordsRequest": lambda message: wire_audit.place(message.after),
    "ListRecordsResponse": wire_audit.records_from_proto,
    "ListCheckpointsRequest": lambda message: wire_audit.place(message.after),
    "ListCheckpointsResponse": _checkpoints,
    "GetCheckpointRequest": lambda message: wire_audit.place(message.after),
    "GetCheckpointResponse": wire_audit.sealed_from_proto,
    "GetLineageRequest": _nothing,
    "GetLineageResponse": wire_audit.signed_from_proto,
}


DIGEST = "7" * 64
_KEY = pb.UpdateKey(run_id="r", round=1)
_SCORES = ScoreSet(1, "dev", WeightsId(DIGEST), 0.5, 0.5, 0.5, 7)
_GATEWAY = GatewayStatus(GatewayId("a"), True, True, 1, 1, EFFECTIVE)
_STATUS = wire_operator.status_to_proto(
    RunStatus(
        *(RunId("r"), "toy", RunState.RUNNING, PlanId(DIGEST)),
        gateways=(_GATEWAY,),
        scores=(_SCORES,),
    )
)
_WHO = Identity("acme", Role.GATEWAY, "a")
_CSR = make_request(new_key(), _WHO)
_CHAIN = to_pem([make_root("acme", datetime(2026, 1, 1, tzinfo=UTC)).certificate])
_MEMBER = enrolment_pb.Member(role=enrolment_pb.MEMBER_ROLE_GATEWAY, name="a")
_SEALED = audit_pb.GetCheckpointResponse(
    checkpoint=audit_pb.AuditCheckpoint(
        federation="acme",
        sequence=1,
        hash=DIGEST,
        at="2026-01-01",
        public_key=DIGEST,
        signature=2 * DIGEST,
    )
)
# whole messages, of which examples from a descriptor alone are none
WHOLE_MESSAGES: Mapping[str, Message] = {
    "GetConfigResponse": pb.GetConfigResponse(
        run_id="r",
        plan=PLAN,
        plan_digest=wire.plan_id(PLAN),
        assigned=wire.HYPERPARAMETERS.to_message(HYPERPARAMETERS),
    ),
    "AcceptPlanRequest": wire.answer_to_proto(RunId("r"), PlanId(DIGEST), EFFECTIVE),
    "SubmitUpdateRequest": pb.SubmitUpdateRequest(
        header=pb.UpdateHeader(
            key=_KEY,
            plan_digest=DIGEST,
            parent=DIGEST,
            body={"digest": DIGEST, "byte_length": 9},
        )
    ),
    "SubmitUpdateResponse": pb.SubmitUpdateResponse(key=_KEY, digest=DIGEST),
    "StartRunRequest": operator_pb.StartRunRequest(run_id="r", plan=PLAN),
    "RecordScoresRequest": operator_pb.RecordScoresRequest(
        run_id="r", scores=wire_operator.SCORES.to_message(_SCORES)
    ),
    "WatchRunResponse": operator_pb.WatchRunResponse(status=_STATUS, plan=PLAN),
    "CancelRunResponse": operator_pb.CancelRunResponse(status=_STATUS),
    "ListRunsResponse": operator_pb.ListRunsResponse(runs=[_STATUS]),
    "ReleaseGatewayResponse": operator_pb.ReleaseGatewayResponse(status=_STATUS),
    "EnrolRequest": enrolment_pb.EnrolRequest(secret=bytes(16), request=_CSR),
    "EnrolResponse": enrolment_pb.EnrolResponse(chain=_CHAIN),
    "RenewRequest": enrolment_pb.RenewRequest(request=_CSR),
    "RenewResponse": enrolment_pb.RenewResponse(chain=_CHAIN),
    "CreateTokenRequest": enrolment_pb.CreateTokenRequest(member=_MEMBER, lifetime_s=60),
    "CreateTokenResponse": enrolment_pb.CreateTokenResponse(
        token=Token(bytes(16), DIGEST, "fed.example.org:8444", _WHO).text()
    ),
    "CertifyRequest": enrolment_pb.CertifyRequest(member=_MEMBER, request=_CSR),
    "CertifyResponse": enrolment_pb.CertifyResponse(chain=_CHAIN),
    "RevokeRequest": enrolment_pb.RevokeRequest(member=_MEMBER),
    "GetCheckpointResponse": _SEALED,
    "ListCheckpointsResponse": audit_pb.ListCheckpointsResponse(checkpoints=[_SEALED.checkpoint]),
    "GetLineageResponse": audit_pb.GetLineageResponse(
        statement=b"{}", public_key=DIGEST, signature=2 * DIGEST
    ),
}


def methods() -> Iterator[tuple[str, Descriptor, Descriptor]]:
    """Yield every method of our services: its path, its request, its response."""
    for service in SERVICES:
        if service.startswith(OURS):
            for method in Default().FindServiceByName(service).methods:
                yield f"/{service}/{method.name}", method.input_type, method.output_type


def targets() -> Iterator[Target]:
    """Yield a target for each message of each method, as the method reads it, frames and all."""
    for path, request, response in methods():
        for kind in (request, response):
            yield _target(path, kind)


def _target(path: str, kind: Descriptor) -> Target:
    check, made = CHECKS[kind.name], GetMessageClass(kind)
    parse = strictly(path, frames.reading(path, made.FromString))
    chance = random.Random(kind.full_name)
    seeds = [example(kind, chance).SerializeToString() for _ in range(EXAMPLES)]
    if kind.name in WHOLE_MESSAGES:
        seeds.append(WHOLE_MESSAGES[kind.name].SerializeToString())
    seeds += [b"", nested(40), nested(200), b"\xfa\x07\x05hello", b"\x08" + b"\xff" * 9 + b"\x01"]

    def run(data: bytes) -> None:
        message = parse(data)
        if path.endswith("FetchWeights") or not isinstance(message, wire.Chunk):
            check(message)

    return Target(kind.name, run, tuple(seeds))


def nested(depth: int) -> bytes:
    """Return a message within a message, `depth` times, in field 1."""
    data = b""
    for _ in range(depth):
        data = b"\x0a" + _varint(len(data)) + data
    return data


def example(kind: Descriptor, chance: random.Random, depth: int = DEPTH) -> Message:
    """Return a message of `kind` with some of its fields set, as a caller might."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if chance.random() < 0.8 and depth:
            _set(message, field, chance, depth)
    return message


def _set(message: Message, field: FieldDescriptor, chance: random.Random, depth: int) -> None:
    nested_kind = field.message_type
    if nested_kind is not None and nested_kind.GetOptions().map_entry:
        getattr(message, field.name)  # filled by what is mutated
    elif nested_kind is not None:
        place = getattr(message, field.name)
        if field.is_repeated:
            place.extend(
                example(nested_kind, chance, depth - 1) for _ in range(chance.randint(1, 3))
            )
        else:
            place.CopyFrom(example(nested_kind, chance, depth - 1))
    elif field.is_repeated:
        getattr(message, field.name).extend(_value(field, chance) for _ in range(2))
    else:
        setattr(message, field.name, _value(field, chance))


def _value(field: FieldDescriptor, chance: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return chance.choice(TEXTS).encode()
        case FieldDescriptor.CPPTYPE_STRING:
            return chance.choice(TEXTS)
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return chance.choice(DOUBLES)
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.choice(field.enum_type.values).number
        case _:
            return chance.choice(WHOLE)


def chunk_as_protobuf_reads_it(data: bytes) -> None:
    """Raise unless a chunk that is read by hand is the one that protobuf reads."""
    chunk = frames.read(data)
    if chunk is None:
        return
    message = pb.SubmitUpdateRequest.FromString(data)
    if (message.chunk.offset, message.chunk.data) != (chunk.offset, bytes(chunk.data)):
        raise AssertionError(chunk)
    if message.SerializeToString() != frames.pack(chunk):
        raise AssertionError(data)


def frame_seeds() -> tuple[bytes, ...]:
    """Return chunks, framed."""
    chunks = (wire.Chunk(0, b""), wire.Chunk(5, b"x"), wire.Chunk((1 << 64) - 1, b"y" * 200))
    return (*map(frames.pack, chunks), b"\x12" + b"\xff" * 10, struct.pack("<Q", 0))


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
