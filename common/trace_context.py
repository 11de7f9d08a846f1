"""Which trace a round belongs to, as W3C's Trace Context writes it.

Every process can tell it from the round's own name: after a restart, or from a standby, spans of
the same round still join. It names nothing that its reader does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from common.ids import PlanId, RunId

TRACEPARENT_PATTERN = r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"
_SAMPLED = "01"


def traceparent_of(run: RunId, plan: PlanId, number: int, attempt: int) -> str:
    """Return the trace of a round, with the span that is one attempt at it.

    Source:
        W3C Recommendation "Trace Context", section 3.2, version 00.
    """
    name = f"fedgate round {run} {plan} {number}"
    trace = blake3(name.encode()).hexdigest(length=16)
    span = blake3(f"{name} {attempt}".encode()).hexdigest(length=8)
    return f"00-{trace}-{span}-{_SAMPLED}"


def ids_in(traceparent: str) -> tuple[int, int]:
    """Return the ids of the trace and of the span that a traceparent names."""
    _, trace, span, _ = traceparent.split("-")
    return int(trace, 16), int(span, 16)
