"""Messages of AuditService <-> values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.audit import LINK_BYTES, Checkpoint, Line, Sealed
from common.lineage import Signed, signed_of
from common.wire_values import Bridge, InvalidMessage
from protos.federation.v1 import audit_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECKPOINT = Bridge(Checkpoint, pb.AuditCheckpoint)


def place(number: int) -> int:
    """Return a record's number, which a database can hold; raise InvalidMessage."""
    if number >= 1 << 62:
        raise InvalidMessage("request", field="after", problem="there is no record of that number")
    return number


def records_to_proto(lines: Iterable[Line]) -> pb.ListRecordsResponse:
    """Return the answer to ListRecords."""
    records = [pb.AuditRecord(sequence=e.sequence, body=e.body, hash=e.hash) for e in lines]
    return pb.ListRecordsResponse(records=records)


def records_from_proto(message: pb.ListRecordsResponse) -> tuple[Line, ...]:
    """Return what came of ListRecords; nothing of it is checked here."""
    return tuple(Line(each.sequence, each.body, each.hash) for each in message.records)


def sealed_to_proto(sealed: Sealed) -> pb.GetCheckpointResponse:
    """Return the answer to GetCheckpoint."""
    checkpoint = CHECKPOINT.to_message(sealed.checkpoint)
    return pb.GetCheckpointResponse(checkpoint=checkpoint, links=sealed.links)


def sealed_from_proto(message: pb.GetCheckpointResponse) -> Sealed:
    """Return what came of GetCheckpoint; its signature is not checked here."""
    if len(message.links) % LINK_BYTES:
        raise InvalidMessage(
            "GetCheckpointResponse", field="links", problem=f"not a multiple of {LINK_BYTES} bytes"
        )
    return Sealed(CHECKPOINT.from_message(message.checkpoint), message.links)


def signed_to_proto(signed: Signed) -> pb.GetLineageResponse:
    """Return one answer of GetLineage."""
    return pb.GetLineageResponse(
        statement=signed.body, public_key=signed.public_key, signature=signed.signature
    )


def signed_from_proto(message: pb.GetLineageResponse) -> Signed:
    """Return one statement as it came; nothing of it is checked but its form."""
    try:
        return signed_of(message.statement, message.public_key, message.signature)
    except ValueError as error:
        problem = "its key or its signature cannot be one"
        raise InvalidMessage("GetLineageResponse", field="signature", problem=problem) from error
