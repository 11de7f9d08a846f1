"""A run that is ordered, as text: what StartRun takes, to be carried from one machine to another.

It holds no secret. The signature in it is good for one run name and one federation.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from textwrap import wrap
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from common.errors import RequestError
from common.wire import PLAN_SIGNATURE
from protos.federation.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from common.ids import RunId
    from common.signatures import PlanSignature

HEAD, TAIL = "-----BEGIN FEDGATE RUN-----", "-----END FEDGATE RUN-----"
WIDTH = 76


class OrderUnreadable(RequestError):
    """What was handed over is not an order."""

    field = "order"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"this is not an order of a run ({why}): take all of the file that "
            "`fedgate run prepare` has written, with its first and last line"
        )


def order_to_text(run_id: RunId, plan: bytes, signature: PlanSignature) -> str:
    """Return a signed plan and the name of its run as text."""
    signed = PLAN_SIGNATURE.to_message(signature)
    request = pb.StartRunRequest(run_id=run_id, plan=plan, signature=signed)
    lines = wrap(b64encode(request.SerializeToString(deterministic=True)).decode(), WIDTH)
    return "\n".join((HEAD, *lines, TAIL, ""))


def order_from_text(text: str) -> pb.StartRunRequest:
    """Return what StartRun takes; raise OrderUnreadable."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < len((HEAD, "", TAIL)) or (lines[0], lines[-1]) != (HEAD, TAIL):
        raise OrderUnreadable("its first or last line is missing")
    try:
        return pb.StartRunRequest.FromString(b64decode("".join(lines[1:-1]), validate=True))
    except (binascii.Error, ValueError, DecodeError) as error:
        raise OrderUnreadable("what stands between its lines is damaged") from error
