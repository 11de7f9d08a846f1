"""Messages of OperatorService <-> values."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from common.protocol import Effective, GatewayStatus, RunStatus, ScoreSet
from common.signatures import RunSignatures, SignedAcceptance
from common.wire import EFFECTIVE, PLAN_SIGNATURE, REFUSAL
from common.wire_values import Bridge
from protos.federation.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from common.protocol import Refusal

SCORES = Bridge(ScoreSet, pb.ScoreSet)
_STATUS = Bridge(RunStatus, pb.RunStatus)
_ACCEPTANCE = Bridge(SignedAcceptance, pb.SignedAcceptance)
_GATEWAY = Bridge(GatewayStatus, pb.GatewayStatus)
_KEPT = 1 << 12  # gateways' states: of a thousand, few are new from one status to the next


def status_to_proto(status: RunStatus) -> pb.RunStatus:
    """Return the message of a run's state."""
    message = _STATUS.to_message(replace(status, gateways=()))
    message.gateways.extend(_gateway_to_proto(gateway) for gateway in status.gateways)
    return message


def status_from_proto(message: pb.RunStatus) -> RunStatus:
    """Return a run's state; raise InvalidMessage naming the field that does not fit."""
    bare = pb.RunStatus()
    bare.CopyFrom(message)
    bare.ClearField("gateways")
    gateways = tuple(_gateway_from_bytes(each.SerializeToString()) for each in message.gateways)
    return replace(_STATUS.from_message(bare), gateways=gateways)


def signatures_to_proto(signatures: RunSignatures) -> pb.GetSignaturesResponse:
    """Return the answer to GetSignatures."""
    signed = signatures.plan_signature
    return pb.GetSignaturesResponse(
        plan=signatures.plan,
        plan_signature=None if signed is None else PLAN_SIGNATURE.to_message(signed),
        acceptances={
            gateway: _ACCEPTANCE.to_message(each)
            for gateway, each in signatures.acceptances.items()
        },
    )


def signatures_from_proto(message: pb.GetSignaturesResponse) -> RunSignatures:
    """Return the answer to GetSignatures; nothing in it is checked yet."""
    present = message.HasField("plan_signature")
    return RunSignatures(
        plan=message.plan,
        plan_signature=PLAN_SIGNATURE.from_message(message.plan_signature) if present else None,
        acceptances={
            gateway: _ACCEPTANCE.from_message(each) for gateway, each in message.acceptances.items()
        },
    )


@lru_cache(_KEPT)
def _gateway_to_proto(status: GatewayStatus) -> pb.GatewayStatus:
    message = _GATEWAY.to_message(replace(status, answer=None))
    if isinstance(status.answer, Effective):
        message.effective.CopyFrom(EFFECTIVE.to_message(status.answer))
    elif status.answer is not None:
        message.refusal.CopyFrom(REFUSAL.to_message(status.answer))
    return message


@lru_cache(_KEPT)
def _gateway_from_bytes(data: bytes) -> GatewayStatus:
    message = pb.GatewayStatus.FromString(data)
    answer: Effective | Refusal | None = None
    match message.WhichOneof("answer"):
        case "effective":
            answer = EFFECTIVE.from_message(message.effective)
        case "refusal":
            answer = REFUSAL.from_message(message.refusal)
        case None:
            pass
    bare = pb.GatewayStatus()
    bare.CopyFrom(message)
    bare.ClearField("effective")
    bare.ClearField("refusal")
    return replace(_GATEWAY.from_message(bare), answer=answer)
