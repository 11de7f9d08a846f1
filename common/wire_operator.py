"""Messages of OperatorService <-> values."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from common.protocol import Effective, GatewayStatus, RunStatus, ScoreSet
from common.wire import EFFECTIVE, REFUSAL
from common.wire_values import Bridge
from protos.federation.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from common.protocol import Refusal

SCORES = Bridge(ScoreSet, pb.ScoreSet)
_STATUS = Bridge(RunStatus, pb.RunStatus)
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
