"""Which errors are verdicts on what an update holds: final for its round, and on record.

What a damaged transfer or a call at the wrong moment is answered is no verdict: a digest that is
not the bytes', a length, an offset, a round that is not open, another plan or parent. The gateway
may send again. A verdict is spoken only of bytes whose digest is the declared one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.bad_updates import UpdateRefusalReason
from common.errors import ConflictError, RequestError
from common.weights import (
    ElementTypeMismatch,
    MalformedWeights,
    NameMismatch,
    NotFinite,
    ShapeMismatch,
)
from common.wire_formats import MalformedEncoding
from orchestrator.aggregation import OutOfRange
from orchestrator.norms import NormTooLarge

if TYPE_CHECKING:
    from common.errors import FederationError
    from common.protocol import UpdateKey


class CopiedUpdate(RequestError):
    """An update has the very bytes of another gateway's of the same round."""

    def __init__(self) -> None:
        super().__init__(
            "the update has the very bytes of another gateway's in this round, which two that "
            "train on their own never have: nothing of it was counted; check that no other site "
            "runs from a copy of this gateway's state"
        )


class UpdateWasRefused(ConflictError):
    """The gateway's update of this round was refused, and that stays."""

    def __init__(self, key: UpdateKey, reason: UpdateRefusalReason) -> None:
        super().__init__(
            f"this gateway's update for round {key.round} of run {key.run_id!r} was refused "
            f"({reason}), and no other is taken for it: wait for what Watch says next"
        )


_REASONS: dict[type[FederationError], UpdateRefusalReason] = {
    MalformedWeights: UpdateRefusalReason.MALFORMED,
    NameMismatch: UpdateRefusalReason.NAMES,
    ShapeMismatch: UpdateRefusalReason.SHAPES,
    ElementTypeMismatch: UpdateRefusalReason.ELEMENT_TYPE,
    NotFinite: UpdateRefusalReason.NOT_FINITE,
    MalformedEncoding: UpdateRefusalReason.ENCODING,
    OutOfRange: UpdateRefusalReason.OUT_OF_RANGE,
    NormTooLarge: UpdateRefusalReason.NORM,
    CopiedUpdate: UpdateRefusalReason.COPY,
}


def reason_of(error: FederationError) -> UpdateRefusalReason | None:
    """Return the reason that an error stands for; None: it is no verdict on an update."""
    return _REASONS.get(type(error))
